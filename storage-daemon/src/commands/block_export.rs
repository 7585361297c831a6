//! block-export.json: exports and the NBD servers that offer them.

use std::sync::Arc;
use std::time::Duration;

use block_core::bitmap::{BitmapHandle, BitmapUse};
use block_core::graph::Node;
use block_core::nbd::{ServerConfig, TlsUpgrade};
use qapi_runtime::{Call, Error};
use schema::{
    BlockDirtyBitmapOrStr, BlockExportCommands, BlockExportDel, BlockExportInfo, BlockExportOptions,
    BlockExportOptionsBranch, BlockExportRemoveMode, BlockExportType, NbdServerAddOptions,
    NbdServerOptionsBase, NbdServerOptionsLegacy, NbdServerRemove, NbdServerStop, SocketAddress,
    SocketAddressLegacy,
};

use crate::cli::CliError;
use crate::cli::chardev::Address;
use crate::convert::error::generic;
use crate::convert::nodes::child_below;
use crate::daemon::Daemon;
use crate::exports::{DEFAULT_CONNECTIONS, DEFAULT_HANDSHAKE_SECONDS, NewExport, ServerOptions, ServerTls};
use crate::objects::{Kind, Object};

impl BlockExportCommands for Daemon {
    async fn nbd_server_start(&self, _call: &Call, args: NbdServerOptionsLegacy) -> Result<(), Error> {
        let address = match args.addr {
            SocketAddressLegacy::Inet(inet) => SocketAddress::Inet(inet.data),
            SocketAddressLegacy::Unix(unix) => SocketAddress::Unix(unix.data),
            SocketAddressLegacy::Vsock(vsock) => SocketAddress::Vsock(vsock.data),
            // A client cannot pass one; only the command line can name one that was there from the start.
            SocketAddressLegacy::Fd(_) => {
                return Err(Error::generic("only QEMU supports file descriptor passing"));
            }
        };
        self.start_nbd_server(args.base, address).await
    }

    async fn nbd_server_add(&self, _call: &Call, args: NbdServerAddOptions) -> Result<(), Error> {
        // The older command names node and export in one and gives no id: the name is the id.
        let node = self.device(&args.device)?;
        let name = args.base.name.unwrap_or_else(|| args.device.clone());
        self.exports.check_id(&name)?;
        let bitmaps: Vec<_> = args
            .bitmap
            .into_iter()
            .map(BlockDirtyBitmapOrStr::Local)
            .collect();
        // It exports read-only nodes as such, whatever was asked.
        let writable = args.writable.unwrap_or(false) && !node.is_read_only();
        let export = NewExport {
            id: name.clone(),
            server: String::new(),
            name,
            description: args.base.description,
            writable,
            writethrough: false,
            allocation_depth: false,
            iothread: None,
        };
        self.exports
            .add(&node, export, || self.bitmaps_to_show(&node, &bitmaps, writable))
    }

    async fn nbd_server_remove(&self, _call: &Call, args: NbdServerRemove) -> Result<(), Error> {
        self.exports
            .remove(&args.name, args.mode == Some(BlockExportRemoveMode::Hard))
            .await
    }

    async fn nbd_server_stop(&self, _call: &Call, args: NbdServerStop) -> Result<(), Error> {
        let exports = Arc::clone(&self.exports);
        self.on_data(async move { exports.stop_server(args.id.as_deref().unwrap_or_default()).await })
            .await
    }

    async fn block_export_add(&self, _call: &Call, args: BlockExportOptions) -> Result<(), Error> {
        self.add_export(args)
    }

    async fn block_export_del(&self, _call: &Call, args: BlockExportDel) -> Result<(), Error> {
        self.exports
            .remove(&args.id, args.mode == Some(BlockExportRemoveMode::Hard))
            .await
    }

    async fn query_block_exports(&self, _call: &Call) -> Result<Vec<BlockExportInfo>, Error> {
        Ok(self
            .exports
            .list()
            .into_iter()
            .map(|export| BlockExportInfo {
                id: export.id,
                r#type: BlockExportType::Nbd,
                node_name: export.node_name,
                shutting_down: export.shutting_down,
            })
            .collect())
    }
}

impl Daemon {
    /// Starts an NBD server; the command line does it too.
    pub async fn start_nbd_server(
        &self,
        options: NbdServerOptionsBase,
        address: SocketAddress,
    ) -> Result<(), Error> {
        let id = options.id.unwrap_or_default();
        if self.exports.has_server(&id) {
            return Err(Error::generic("NBD server already running"));
        }
        let (tls, credentials) = match &options.tls_creds {
            Some(id) => {
                let (config, held) = self.objects.use_server_credentials(id)?;
                let acceptor = tokio_rustls::TlsAcceptor::from(config);
                (
                    Some(Arc::new(ServerTls {
                        acceptor,
                        authorization: options.tls_authz.map(|id| (Arc::clone(&self.objects), id)),
                    }) as Arc<dyn TlsUpgrade>),
                    Some(held),
                )
            }
            None => (None, None),
        };
        let seconds = options.handshake_max_seconds.unwrap_or(DEFAULT_HANDSHAKE_SECONDS);
        let connections = options.max_connections.unwrap_or(DEFAULT_CONNECTIONS);
        let address = match address {
            SocketAddress::Unix(unix) => Address::Unix {
                path: unix.path,
                is_abstract: unix.r#abstract.unwrap_or(false),
            },
            SocketAddress::Inet(inet) => Address::Inet {
                host: inet.base.host,
                port: inet.base.port,
                to: inet.to,
                ipv4: inet.ipv4,
                ipv6: inet.ipv6,
            },
            SocketAddress::Fd(fd) => Address::Descriptor(fd.str),
            SocketAddress::Vsock(_) => {
                return Err(Error::generic(
                    "Only 'inet' and 'unix' sockets are supported here",
                ));
            }
        };
        let passed = match &address {
            Address::Descriptor(wanted) => Some(
                self.passed
                    .claim(wanted)
                    .map_err(|CliError(text)| Error::generic(text))?,
            ),
            _ => None,
        };
        self.exports
            .start_server(ServerOptions {
                id,
                address,
                passed,
                config: ServerConfig {
                    handshake_timeout: (seconds > 0).then(|| Duration::from_secs(u64::from(seconds))),
                    max_connections: usize::try_from(connections).unwrap_or(usize::MAX),
                    tls,
                },
                credentials,
            })
            .await
    }

    /// Adds an export; the command line does it too.
    pub fn add_export(&self, args: BlockExportOptions) -> Result<(), Error> {
        self.exports.check_id(&args.id)?;
        let node = self.graph.get(&args.node_name).map_err(generic)?;
        if args.writable == Some(true) && node.is_read_only() {
            return Err(Error::generic("Cannot export read-only node as writable"));
        }
        if let Some(id) = &args.iothread
            && !matches!(
                self.objects.get(id),
                Some(Object {
                    kind: Kind::Iothread,
                    ..
                })
            )
        {
            return Err(Error::generic(format!("iothread \"{id}\" not found")));
        }
        if args.iothread.is_some()
            && args.fixed_iothread == Some(true)
            && node.parents().iter().any(|edge| edge.name() == "root")
            && self.exports.iothread_of(&node) != args.iothread
        {
            return Err(Error::generic("Cannot change iothread of active block backend"));
        }
        let writable = args.writable.unwrap_or(false);
        let BlockExportOptionsBranch::Nbd(options) = args.branch;
        let server = options.server.unwrap_or_default();
        let bitmaps = options.bitmaps.unwrap_or_default();
        let export = NewExport {
            id: args.id,
            server,
            name: options.base.name.unwrap_or(args.node_name),
            description: options.base.description,
            writable,
            writethrough: args.writethrough.unwrap_or(false),
            allocation_depth: options.allocation_depth.unwrap_or(false),
            iothread: args.iothread,
        };
        self.exports
            .add(&node, export, || self.bitmaps_to_show(&node, &bitmaps, writable))
    }

    /// Bitmaps by the names that clients ask for; a name alone is looked for down the chain.
    fn bitmaps_to_show(
        &self,
        node: &Arc<Node>,
        given: &[BlockDirtyBitmapOrStr],
        writable: bool,
    ) -> Result<Vec<(String, BitmapHandle)>, Error> {
        let mut shown: Vec<(String, BitmapHandle)> = Vec::with_capacity(given.len());
        for one in given {
            // A bitmap that is named with its node is taken as it is.
            let mut records_here = false;
            let (name, bitmap) = match one {
                BlockDirtyBitmapOrStr::External(external) => {
                    let bitmaps = self.bitmap_node(&external.node)?;
                    (
                        &external.name,
                        bitmaps.bitmaps().get(&external.name).map_err(generic)?,
                    )
                }
                BlockDirtyBitmapOrStr::Local(name) => {
                    let mut at = Some(Arc::clone(node));
                    let mut found = None;
                    while let Some(node) = at {
                        found = node.bitmaps().find(name);
                        at = match &found {
                            Some(_) => None,
                            None => child_below(&node).map(|child| child.node()),
                        };
                        records_here = !node.is_read_only();
                    }
                    (
                        name,
                        found.ok_or_else(|| Error::generic(format!("Bitmap '{name}' is not found")))?,
                    )
                }
            };
            bitmap.check(BitmapUse::Read).map_err(generic)?;
            let recording = bitmap.info().is_some_and(|info| info.recording);
            if !writable && recording && records_here {
                return Err(Error::generic(format!(
                    "Enabled bitmap '{name}' incompatible with readonly export"
                )));
            }
            // One that is named twice is shown and held once.
            if !shown
                .iter()
                .any(|(known, other)| known == name && *other == bitmap)
            {
                shown.push((name.clone(), bitmap));
            }
        }
        Ok(shown)
    }
}
