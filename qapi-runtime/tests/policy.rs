//! What is done with the deprecated and the unstable, as clients see it: two listeners of one server, of which one
//! takes everything and the other refuses and hides.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test ends by failing, and is no page for users"
)]

use qapi_runtime::policy::{InputPolicy, OutputPolicy};
use qapi_runtime::{
    Call, CommandTable, DecodeError, Error, Event, EventHub, ListenOptions, Listener, Members, Object,
    Policy, Preconfig, Row, Server, Special, StringEnum, UnixOptions, Writer, call,
};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;

/// What generated code looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    Old,
    New,
}

impl StringEnum for Mode {
    const VALUES: &'static [Self] = &[Mode::Plain, Mode::Old, Mode::New];

    fn wire_name(&self) -> &str {
        match self {
            Mode::Plain => "plain",
            Mode::Old => "old",
            Mode::New => "x-new",
        }
    }

    fn special(&self) -> Special {
        match self {
            Mode::Plain => Special::NONE,
            Mode::Old => Special::DEPRECATED,
            Mode::New => Special::UNSTABLE,
        }
    }
}

qapi_runtime::string_enum!(Mode);

#[derive(Debug, Clone, PartialEq)]
struct Thing {
    name: String,
    old: Option<i64>,
    x_new: Option<i64>,
    modes: Option<Vec<Mode>>,
}

impl Members for Thing {
    fn take(object: &mut Object<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: object.required("name")?,
            old: object.special(Special::DEPRECATED).optional("old")?,
            x_new: object.special(Special::UNSTABLE).optional("x-new")?,
            modes: object.optional("modes")?,
        })
    }

    fn put(&self, out: &mut Writer) {
        out.member("name", &self.name);
        if !out.hides(Special::DEPRECATED) {
            out.optional("old", &self.old);
        }
        if !out.hides(Special::UNSTABLE) {
            out.optional("x-new", &self.x_new);
        }
        out.optional("modes", &self.modes);
    }
}

qapi_runtime::object!(strict Thing);

struct Told(Special, Thing);

impl Event for Told {
    fn name(&self) -> &'static str {
        if self.0.is_none() { "TOLD" } else { "TOLD_SPECIAL" }
    }

    fn special(&self) -> Special {
        self.0
    }

    fn encode_data(&self, out: &mut Writer) {
        qapi_runtime::Encode::encode(&self.1, out);
    }
}

struct Handler;

trait Commands: Send + Sync {
    fn echo(&self, call: &Call, arguments: Thing) -> impl Future<Output = Result<Thing, Error>> + Send;
    fn full(&self, call: &Call) -> impl Future<Output = Result<Thing, Error>> + Send;
}

impl Commands for Handler {
    async fn echo(&self, _call: &Call, arguments: Thing) -> Result<Thing, Error> {
        Ok(arguments)
    }

    async fn full(&self, _call: &Call) -> Result<Thing, Error> {
        Ok(full())
    }
}

fn full() -> Thing {
    Thing {
        name: "n".into(),
        old: Some(1),
        x_new: Some(2),
        modes: Some(vec![Mode::Old, Mode::New]),
    }
}

fn rows<H: Commands + 'static>() -> Vec<Row<H>> {
    Vec::from([
        Row::<H>::new("echo", call!(H::echo(arguments))),
        Row::<H>::new("full", call!(H::full())),
        Row::<H>::new("old", call!(H::full())).features(&["deprecated"]),
        Row::<H>::new("x-new", call!(H::full())).features(&["other", "unstable"]),
        Row::<H>::new("x-old", call!(H::echo(arguments))).features(&["unstable", "deprecated"]),
    ])
}

const SCHEMA: &[u8] = br#"[{"name": "0", "meta-type": "enum", "members": [{"name": "a"}, {"name": "values"}], "values": ["a", "values"]}, {"name": "1", "meta-type": "enum", "members": [], "values": [], "features": ["f"]}, {"name": "2", "meta-type": "object", "members": [{"name": "old", "type": "0", "features": ["deprecated"]}, {"name": "x", "type": "1", "features": ["unstable"]}, {"name": "values", "type": "1"}]}, {"name": "3", "meta-type": "enum", "members": [{"name": "old", "features": ["deprecated"]}], "values": ["old"]}, {"name": "old", "meta-type": "command", "arg-type": "2", "ret-type": "2", "features": ["other", "deprecated"]}, {"name": "x-new", "meta-type": "command", "arg-type": "2", "ret-type": "2", "features": ["unstable"]}]"#;

struct Running {
    hub: Arc<EventHub>,
    folder: tempfile::TempDir,
}

/// One server with a socket for each policy.
fn start(policies: &[(&str, Policy)]) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let hub = Arc::new(EventHub::new());
    let table: CommandTable<Handler> = rows().into_iter().collect();
    let server = Server::builder(table, Arc::new(Handler))
        .introspection(SCHEMA)
        .events(Arc::clone(&hub))
        .build();
    for (name, policy) in policies {
        let listener = Listener::unix(&folder.path().join(name), UnixOptions::default()).unwrap();
        let options = ListenOptions {
            policy: *policy,
            ..ListenOptions::default()
        };
        let server = server.clone();
        tokio::spawn(async move { server.serve(listener, options).await });
    }
    Running { hub, folder }
}

struct Plain(BufStream<UnixStream>);

impl Plain {
    async fn connect(path: &Path) -> Plain {
        let mut plain = Plain(BufStream::new(UnixStream::connect(path).await.unwrap()));
        plain.message().await.unwrap();
        plain.call("qmp_capabilities", None).await;
        plain
    }

    async fn message(&mut self) -> Option<Value> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).await.ok()?;
        (length > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    async fn try_call(&mut self, command: &str, arguments: Option<Value>) -> Option<Value> {
        let mut request = json!({"execute": command});
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        self.0.write_all(format!("{request}\n").as_bytes()).await.ok()?;
        self.0.flush().await.ok()?;
        self.message().await
    }

    async fn call(&mut self, command: &str, arguments: Option<Value>) -> Value {
        self.try_call(command, arguments).await.unwrap()
    }
}

const STERN: Policy = Policy {
    deprecated_input: InputPolicy::Reject,
    deprecated_output: OutputPolicy::Hide,
    unstable_input: InputPolicy::Reject,
    unstable_output: OutputPolicy::Hide,
};

#[tokio::test]
async fn input_is_refused_where_the_policy_says_so() {
    let running = start(&[("mild", Policy::default()), ("stern", STERN)]);
    let mut mild = Plain::connect(&running.folder.path().join("mild")).await;
    let mut stern = Plain::connect(&running.folder.path().join("stern")).await;
    let cases = [
        (
            "old",
            None,
            "CommandNotFound",
            "Deprecated command old disabled by policy",
        ),
        (
            "x-new",
            None,
            "CommandNotFound",
            "Unstable command x-new disabled by policy",
        ),
        // The command comes before its arguments, and deprecated before unstable.
        (
            "x-old",
            Some(json!({"bogus": 1})),
            "CommandNotFound",
            "Deprecated command x-old disabled by policy",
        ),
        (
            "echo",
            Some(json!({"name": "n", "old": 1})),
            "GenericError",
            "Deprecated parameter old disabled by policy",
        ),
        (
            "echo",
            Some(json!({"name": "n", "x-new": "not even a number"})),
            "GenericError",
            "Unstable parameter x-new disabled by policy",
        ),
        (
            "echo",
            Some(json!({"name": "n", "modes": ["plain", "old"]})),
            "GenericError",
            "Deprecated value old disabled by policy",
        ),
        (
            "echo",
            Some(json!({"name": "n", "modes": ["x-new"]})),
            "GenericError",
            "Unstable value x-new disabled by policy",
        ),
        (
            "echo",
            Some(json!({"name": "n", "modes": ["x-none"]})),
            "GenericError",
            "Parameter 'null' does not accept value 'x-none'",
        ),
    ];
    for (command, arguments, class, desc) in cases {
        assert_eq!(
            stern.call(command, arguments).await,
            json!({"error": {"class": class, "desc": desc}})
        );
    }
    let plain = json!({"name": "n", "modes": ["plain"]});
    assert_eq!(
        stern.call("echo", Some(plain.clone())).await,
        json!({"return": plain})
    );
    let all = json!({"name": "n", "old": 1, "x-new": 2, "modes": ["old", "x-new"]});
    assert_eq!(mild.call("echo", Some(all.clone())).await, json!({"return": all}));
    assert_eq!(
        mild.call("x-old", Some(all.clone())).await,
        json!({"return": all})
    );
    // All commands are listed whatever the policy.
    assert_eq!(
        stern.call("query-commands", None).await,
        mild.call("query-commands", None).await
    );
}

#[tokio::test]
async fn output_is_hidden_where_the_policy_says_so() {
    let only_old = Policy {
        deprecated_output: OutputPolicy::Hide,
        ..Policy::default()
    };
    let running = start(&[
        ("mild", Policy::default()),
        ("stern", STERN),
        ("no-old", only_old),
    ]);
    let mut mild = Plain::connect(&running.folder.path().join("mild")).await;
    let mut stern = Plain::connect(&running.folder.path().join("stern")).await;
    let mut no_old = Plain::connect(&running.folder.path().join("no-old")).await;
    // Values of enumerations are not hidden: a list would be another one without them.
    let modes = json!(["old", "x-new"]);
    let all = json!({"name": "n", "old": 1, "x-new": 2, "modes": modes});
    let without_old = json!({"name": "n", "x-new": 2, "modes": modes});
    let without_both = json!({"name": "n", "modes": modes});
    assert_eq!(mild.call("full", None).await["return"], all);
    assert_eq!(no_old.call("full", None).await["return"], without_old);
    assert_eq!(stern.call("full", None).await["return"], without_both);
    let schema: Value = serde_json::from_slice(SCHEMA).unwrap();
    assert_eq!(mild.call("query-qmp-schema", None).await["return"], schema);
    let modern = json!([
        {"name": "0", "meta-type": "enum", "members": [{"name": "a"}, {"name": "values"}]},
        {"name": "1", "meta-type": "enum", "members": [], "features": ["f"]},
        {"name": "2", "meta-type": "object", "members": [
            {"name": "x", "type": "1", "features": ["unstable"]}, {"name": "values", "type": "1"}]},
        {"name": "3", "meta-type": "enum", "members": [{"name": "old", "features": ["deprecated"]}]},
        {"name": "x-new", "meta-type": "command", "arg-type": "2", "ret-type": "2", "features": ["unstable"]}
    ]);
    for plain in [&mut stern, &mut no_old] {
        assert_eq!(plain.call("query-qmp-schema", None).await["return"], modern);
    }
    for special in [Special::DEPRECATED, Special::UNSTABLE, Special::NONE] {
        running.hub.emit(&Told(special, full()));
    }
    for (plain, expected) in [
        (
            &mut mild,
            vec![("TOLD_SPECIAL", &all), ("TOLD_SPECIAL", &all), ("TOLD", &all)],
        ),
        (
            &mut no_old,
            vec![("TOLD_SPECIAL", &without_old), ("TOLD", &without_old)],
        ),
        (&mut stern, vec![("TOLD", &without_both)]),
    ] {
        for (name, data) in expected {
            let message = plain.message().await.unwrap();
            assert_eq!((&message["event"], &message["data"]), (&json!(name), data));
        }
    }
}

/// Run by the test below in a process of its own.
#[tokio::test]
async fn crash_in_here() {
    let Ok(what) = std::env::var("QAPI_TEST_CRASH") else {
        return;
    };
    let policy = Policy {
        deprecated_input: InputPolicy::Crash,
        ..Policy::default()
    };
    let running = start(&[("fatal", policy)]);
    let mut fatal = Plain::connect(&running.folder.path().join("fatal")).await;
    let arguments = (what == "echo").then(|| json!({"name": "n", "old": 1}));
    fatal.try_call(&what, arguments).await;
}

#[test]
fn crash_ends_the_program_when_it_is_used() {
    for (what, crashes) in [("old", true), ("echo", true), ("x-new", false), ("full", false)] {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash_in_here", "--nocapture"])
            .env("QAPI_TEST_CRASH", what)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.success(), !crashes, "{what}: {status}");
    }
}

#[tokio::test]
async fn some_commands_run_before_everything_is_set_up() {
    let preconfig = Preconfig::new();
    let mut table: CommandTable<Handler> = rows().into_iter().collect();
    table.extend([Row::<Handler>::new("early", call!(Handler::full())).allow_preconfig()]);
    let server = Server::builder(table, Arc::new(Handler))
        .preconfig(preconfig.clone())
        .build();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = Listener::unix(&path, UnixOptions::default()).unwrap();
    let options = ListenOptions {
        policy: STERN,
        ..ListenOptions::default()
    };
    tokio::spawn(async move { server.serve(listener, options).await });
    let mut plain = Plain::connect(&path).await;
    assert!(plain.call("early", None).await["return"].is_object());
    assert!(plain.call("query-commands", None).await["return"].is_array());
    let refused = "The command 'full' is permitted only after machine initialization has completed";
    for _ in 0..2 {
        // Whatever the arguments are.
        let arguments = Some(json!({"x": 1}));
        assert_eq!(plain.call("full", arguments).await["error"]["desc"], refused);
    }
    assert_eq!(
        plain.call("old", None).await["error"]["desc"],
        "Deprecated command old disabled by policy"
    );
    preconfig.end();
    assert!(plain.call("full", None).await["return"].is_object());
}

#[tokio::test]
async fn the_policy_comes_before_how_a_command_is_sent() {
    let running = start(&[("stern", STERN)]);
    let socket = UnixStream::connect(running.folder.path().join("stern"));
    let mut stern = Plain(BufStream::new(socket.await.unwrap()));
    stern.message().await.unwrap();
    let enable = Some(json!({"enable": ["oob"]}));
    assert!(stern.call("qmp_capabilities", enable).await["return"].is_object());
    stern.0.write_all(b"{\"exec-oob\": \"old\"}\n").await.unwrap();
    stern.0.flush().await.unwrap();
    let answer = stern.message().await.unwrap();
    assert_eq!(
        answer["error"]["desc"],
        "Deprecated command old disabled by policy"
    );
}
