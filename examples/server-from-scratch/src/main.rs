//! A QMP server of one's own: a schema, a trait to implement, a socket.
//!
//! ```text
//! cargo run -p example-server-from-scratch -- /tmp/notes.sock
//! socat - UNIX:/tmp/notes.sock
//! {"execute": "qmp_capabilities"}
//! {"execute": "note-add", "arguments": {"text": "hello"}}
//! ```

use notes::{NoteAdd, NoteAdded, NoteRemove, NotesCommands};
use qapi_runtime::{Call, Error, EventHub, ListenOptions, Listener, Server, UnixOptions};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What the compiler made of `notes.json`.
pub mod notes {
    include!(concat!(env!("OUT_DIR"), "/notes.rs"));
}

#[derive(Default)]
struct Notebook {
    notes: Mutex<Vec<notes::Note>>,
    events: Arc<EventHub>,
}

impl NotesCommands for Notebook {
    async fn note_add(&self, _call: &Call, args: NoteAdd) -> Result<notes::Note, Error> {
        let mut all = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let id = all.last().map_or(1, |last| last.id + 1);
        let note = notes::Note {
            id,
            text: args.text,
            tags: args.tags,
        };
        all.push(note.clone());
        self.events.emit(&NoteAdded { note: note.clone() });
        Ok(note)
    }

    async fn note_remove(&self, _call: &Call, args: NoteRemove) -> Result<(), Error> {
        let mut all = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|note| note.id == args.id);
        let at = at.ok_or_else(|| Error::generic(format!("There is no note {}", args.id)))?;
        all.remove(at);
        Ok(())
    }

    async fn query_notes(&self, _call: &Call) -> Result<Vec<notes::Note>, Error> {
        Ok(self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn server() -> Server {
    let notebook = Arc::new(Notebook::default());
    let events = Arc::clone(&notebook.events);
    Server::builder(notes::commands(), notebook)
        .introspection(notes::INTROSPECTION)
        .events(events)
        .build()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give the path of a socket")?;
    let listener = Listener::unix(Path::new(&path), UnixOptions::default())?;
    server().serve(listener, ListenOptions::default()).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use qapi_runtime::Peer;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    #[tokio::test]
    async fn a_note_comes_back_and_a_bad_one_is_refused() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = server();
        tokio::spawn(server.attach(theirs, Peer::Other("test".into()), ListenOptions::default()));
        let (reader, mut writer) = tokio::io::split(ours);
        let mut lines = BufReader::new(reader).lines();
        lines.next_line().await.unwrap().unwrap();
        for (request, expected) in [
            (r#"{"execute": "qmp_capabilities"}"#, r#"{"return": {}}"#),
            (
                r#"{"execute": "note-add", "arguments": {"text": 1}}"#,
                "Invalid parameter type for 'text', expected: string",
            ),
            (
                r#"{"execute": "note-add", "arguments": {"text": "a", "tagz": []}}"#,
                "Parameter 'tagz' is unexpected",
            ),
            (
                r#"{"execute": "note-remove", "arguments": {"id": 7}}"#,
                "There is no note 7",
            ),
            (
                r#"{"execute": "note-add", "arguments": {"text": "a"}}"#,
                "NOTE_ADDED",
            ),
            (
                r#"{"execute": "query-notes"}"#,
                r#"{"return": {"id": 1, "text": "a"}}"#,
            ),
        ] {
            writer.write_all(request.as_bytes()).await.unwrap();
            let line = lines.next_line().await.unwrap().unwrap();
            assert!(line.contains(expected), "{request} -> {line}");
        }
        let line = lines.next_line().await.unwrap().unwrap();
        assert_eq!(line, r#"{"return": [{"id": 1, "text": "a"}]}"#);
    }
}
