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
    use qapi_runtime::{Decode, Document};
    use std::process::{Command, Stdio};

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

    /// Against the real program, where it is installed.
    #[tokio::test]
    async fn the_tour_against_qemu() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp.sock");
        let daemon = Command::new("qemu-storage-daemon")
            .arg("--chardev")
            .arg(format!(
                "socket,id=c,path={},server=on,wait=off",
                socket.display()
            ))
            .args(["--monitor", "c"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut daemon) = daemon else {
            println!("skipped: qemu-storage-daemon is not installed");
            return;
        };
        for _ in 0..200 {
            if socket.exists() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let said = async {
            let connection = Connection::connect(&format!("unix:{}", socket.display())).await?;
            tour(connection).await
        };
        let said = said.await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert!(said.unwrap().contains(&"example is null-co".to_owned()));
    }
}
