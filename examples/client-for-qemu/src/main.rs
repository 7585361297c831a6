//! A typed client for `qemu-storage-daemon`, QEMU itself, or this project's own daemon, of any version.
//!
//! ```text
//! cargo run -p example-client-for-qemu -- unix:/run/qemu/qmp.sock
//! ```

use qapi_runtime::client::{Client as Connection, ClientError};
use qemu::{
    BlockdevDel, BlockdevOptions, BlockdevOptionsBranch, BlockdevOptionsNull, Client, QueryNamedBlockNodes,
};

/// What the compiler made of `qemu.json`.
pub mod qemu {
    include!(concat!(env!("OUT_DIR"), "/qemu.rs"));
}

/// Makes a node, finds it, and removes it again.
///
/// # Errors
/// When the server refuses one of the steps or the connection is lost.
async fn tour(connection: Connection) -> Result<Vec<String>, ClientError> {
    let qmp = Client::new(connection);
    let version = qmp.query_version().await?;
    let mut said = vec![format!(
        "{}.{}.{}",
        version.qemu.major, version.qemu.minor, version.qemu.micro
    )];
    qmp.blockdev_add(&BlockdevOptions {
        node_name: Some("example".to_owned()),
        branch: BlockdevOptionsBranch::NullCo(BlockdevOptionsNull { size: Some(1 << 20) }),
    })
    .await?;
    for node in qmp
        .query_named_block_nodes(&QueryNamedBlockNodes { flat: Some(true) })
        .await?
    {
        said.push(format!("{} is {}", node.node_name.unwrap_or_default(), node.drv));
    }
    qmp.blockdev_del(&BlockdevDel {
        node_name: "example".to_owned(),
    })
    .await?;
    Ok(said)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .ok_or("give an address: unix:PATH or tcp:HOST:PORT")?;
    for line in tour(Connection::connect(&address).await?).await? {
        println!("{line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use qapi_runtime::client::{ClientOptions, blocking};
    use qapi_runtime::{Decode, Document, ErrorClass};
    use std::process::{Child, Command, Stdio};
    use tokio::io::Join;
    use tokio::process::{ChildStdin, ChildStdout};

    fn document(json: &str) -> Document {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_a_newer_server_says_is_tolerated() {
        let reply = document(r#"{"driver": "quantum", "node-name": "n", "qubits": 3}"#);
        let options = BlockdevOptions::decode(reply.root().unwrap()).unwrap();
        assert_eq!(options.kind().as_str(), "quantum");
        let data = document(r#"{"guest": true, "reason": "guest-shutdown"}"#);
        let event = qemu::Event::decode("SHUTDOWN", data.root()).unwrap();
        assert_eq!(event, qemu::Event::Shutdown(qemu::Shutdown { guest: true }));
        let event = qemu::Event::decode("NEWS", None).unwrap();
        assert!(matches!(event, qemu::Event::UnknownEvent { name, .. } if name == "NEWS"));
    }

    /// The real program, where it is installed, to be spoken to by its standard input and output.
    fn daemon() -> Option<Child> {
        let child = Command::new("qemu-storage-daemon")
            .args(["--chardev", "stdio,id=c", "--monitor", "c"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        if child.is_err() {
            println!("skipped: qemu-storage-daemon is not installed");
        }
        child.ok()
    }

    fn pipes(child: &mut Child) -> std::io::Result<Join<ChildStdout, ChildStdin>> {
        let (stdout, stdin) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        Ok(tokio::io::join(
            ChildStdout::from_std(stdout)?,
            ChildStdin::from_std(stdin)?,
        ))
    }

    #[tokio::test]
    async fn the_tour_against_qemu() {
        let Some(mut child) = daemon() else { return };
        let pipes = pipes(&mut child).unwrap();
        let said = async { tour(Connection::over(pipes, ClientOptions::default()).await?).await };
        let said = said.await;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(said.unwrap().contains(&"example is null-co".to_owned()));
    }

    /// The same calls where nothing is async: each is waited for.
    #[test]
    fn without_async() {
        let Some(mut child) = daemon() else { return };
        let connection = blocking::Client::over(|| pipes(&mut child), ClientOptions::default()).unwrap();
        let qmp = Client::new(connection.calls());
        let version = connection.wait(qmp.query_version());
        let node_name = "nobody".to_owned();
        let refused = connection.wait(qmp.blockdev_del(&BlockdevDel { node_name }));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(version.unwrap().qemu.major >= 5);
        assert_eq!(refused.unwrap_err().class(), Some(ErrorClass::GenericError));
        assert!(connection.wait(qmp.query_version()).is_err());
    }
}
