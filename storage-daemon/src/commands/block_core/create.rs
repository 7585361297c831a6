//! Making images: the `blockdev-create` job, and images that other commands make on the way.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use block_core::driver::Preallocation;
use block_core::drivers::by_name::{self, Name};
use block_core::drivers::create_file::{self as file, CreateFile};
use block_core::drivers::qcow2::{self, CreateOptions, Storage};
use block_core::graph::{Backend, BackendUser, Graph, Node, Perm};
use block_core::options::{
    BackingRef, DriverOptions, FileOptions, NodeOptions, NodeRef, Qcow2Options, RawOptions,
};
use block_core::{BlockError, ErrorKind};
use qapi_runtime::Error;
use schema::{BlockdevCreateOptions, BlockdevCreateOptionsQcow2, PreallocMode};

use crate::convert::error::generic;
use crate::convert::options::node_reference;
use crate::daemon::Daemon;
use crate::process::os_text;

pub(super) async fn create(daemon: &Daemon, args: schema::BlockdevCreate) -> Result<(), Error> {
    let graph = Arc::clone(&daemon.graph);
    match args.options {
        BlockdevCreateOptions::File(options) => daemon.jobs.create_image(&args.job_id, async move {
            file::create(&CreateFile {
                filename: options.filename,
                size: options.size,
                preallocation: preallocation(options.preallocation),
                nocow: options.nocow.unwrap_or(false),
                extent_size_hint: options.extent_size_hint,
            })
            .await
        }),
        BlockdevCreateOptions::Qcow2(options) => {
            let reference = node_reference(options.file.clone())?;
            daemon.jobs.create_image(&args.job_id, async move {
                match reference {
                    NodeRef::Name(name) => {
                        let node = graph.find(name.as_str()).ok_or_else(|| {
                            BlockError::new(
                                ErrorKind::NotFound,
                                format!("Cannot find device='{name}' nor node-name='{name}'"),
                            )
                        })?;
                        write_qcow2(&graph, &node, &qcow2_options(&options)?).await
                    }
                    NodeRef::Options(node) => {
                        let node = graph.open_temporary(*node).await?;
                        let result = match qcow2_options(&options) {
                            Ok(options) => write_qcow2(&graph, &node, &options).await,
                            Err(error) => Err(error),
                        };
                        graph.close_if_unused(node).await;
                        result
                    }
                }
            })
        }
        _ => return Err(Error::generic("Driver does not support blockdev-create")),
    }
    .map_err(generic)
}

/// What an image is made of. What is wrong in itself is told before what this program does not offer.
fn qcow2_options(options: &BlockdevCreateOptionsQcow2) -> Result<CreateOptions, BlockError> {
    let defaults = CreateOptions::default();
    // No width is negative: it is refused as any other that does not exist.
    let refcount_bits = options
        .refcount_bits
        .map_or(defaults.refcount_bits, |bits| u64::try_from(bits).unwrap_or(0));
    let created = CreateOptions {
        size: options.size,
        version: if options.version == Some(schema::BlockdevQcow2Version::V2) {
            2
        } else {
            3
        },
        cluster_bytes: options.cluster_size.unwrap_or(defaults.cluster_bytes),
        refcount_bits,
        backing_file: options.backing_file.clone(),
        backing_format: options.backing_fmt.map(|format| format.as_str().to_owned()),
        preallocation: preallocation(options.preallocation),
        lazy_refcounts: options.lazy_refcounts.unwrap_or(false),
        compression: match options.compression_type {
            Some(schema::Qcow2CompressionType::Zstd) => qcow2::Compression::Zstd,
            Some(schema::Qcow2CompressionType::Zlib) | None => qcow2::Compression::Zlib,
        },
    };
    created.check()?;
    match refusal(options, &created) {
        Some(text) => Err(BlockError::new(ErrorKind::Unsupported, text)),
        None => Ok(created),
    }
}

fn refusal(options: &BlockdevCreateOptionsQcow2, created: &CreateOptions) -> Option<&'static str> {
    if options.data_file.is_some() {
        return Some(if created.version < 3 {
            "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)"
        } else {
            "External data files are not supported"
        });
    }
    if options.data_file_raw == Some(true) {
        return Some("data-file-raw requires data-file");
    }
    if options.extended_l2 == Some(true) {
        return Some(if created.version < 3 {
            "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)"
        } else if created.cluster_bytes < 16 << 10 {
            "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes"
        } else {
            "Extended L2 entries are not supported"
        });
    }
    options
        .encrypt
        .is_some()
        .then_some("Encrypted qcow2 images are not supported")
}

/// Writes an empty qcow2 image to a node.
async fn write_qcow2(
    graph: &Arc<Graph>,
    node: &Arc<Node>,
    options: &CreateOptions,
) -> Result<(), BlockError> {
    let backend = Backend::new(
        graph,
        node,
        BackendUser::unnamed(),
        Perm::WRITE | Perm::RESIZE,
        Perm::ALL,
    )?;
    let storage: Arc<dyn Storage> = Arc::clone(backend.child()) as _;
    let result = qcow2::create(storage, options).await;
    backend.detach().await;
    result
}

/// Makes an image file of a format, by the rules of commands that name files: QEMU's defaults for all else.
pub async fn image(
    graph: &Arc<Graph>,
    filename: &str,
    format: &str,
    size: u64,
    backing: Option<(String, String)>,
) -> Result<(), Error> {
    let can_create = match format {
        "qcow2" | "raw" | "file" => true,
        "host_device" | "null-aio" | "null-co" | "nbd" | "throttle" | "copy-before-write"
        | "snapshot-access" | "blkdebug" => false,
        _ => return Err(Error::generic(format!("Unknown file format '{format}'"))),
    };
    let place = match by_name::read(filename).map_err(generic)? {
        Name::Description(_) => return Err(Error::generic("Unknown protocol 'json'")),
        place => place,
    };
    if !can_create {
        return Err(Error::generic(format!(
            "Format driver '{format}' does not support image creation"
        )));
    }
    if backing.is_some() && format != "qcow2" {
        return Err(Error::generic(format!(
            "Backing file not supported for file format '{format}'"
        )));
    }
    if backing.as_ref().is_some_and(|(name, _)| name == filename) {
        return Err(Error::generic(
            "Error: Trying to create an image with the same filename as the backing file",
        ));
    }
    let is_qcow2 = format == "qcow2";
    let driver = match place {
        Name::Server(server) => DriverOptions::Nbd(server),
        Name::Path(path) | Name::Description(path) => {
            let file = CreateFile {
                filename: path.to_owned(),
                size: if is_qcow2 { 0 } else { size },
                preallocation: Preallocation::Off,
                nocow: false,
                extent_size_hint: None,
            };
            file::create(&file).await.map_err(generic)?;
            if !is_qcow2 {
                return Ok(());
            }
            file_driver(path)
        }
    };
    let is_server = matches!(driver, DriverOptions::Nbd(_));
    let options = NodeOptions {
        driver,
        ..NodeOptions::default()
    };
    let node = graph.open_temporary(options).await.map_err(|error| {
        if is_server {
            Error::generic(format!(
                "Protocol driver 'nbd' does not support creating new images, so an existing image must be selected as \
                 the target; however, opening the given target as an existing image failed: {error}"
            ))
        } else {
            generic(error)
        }
    })?;
    if !is_qcow2 {
        // A server's disk is as long as it is.
        let fits = node.length() >= size;
        graph.close_if_unused(node).await;
        return if fits {
            Ok(())
        } else {
            Err(Error::generic("Could not resize image: Operation not supported"))
        };
    }
    let (backing_file, backing_format) = backing.unzip();
    let options = CreateOptions {
        size,
        backing_file,
        backing_format,
        ..CreateOptions::default()
    };
    let result = write_qcow2(graph, &node, &options).await;
    graph.close_if_unused(node).await;
    result.map_err(generic)
}

fn file_driver(filename: &str) -> DriverOptions {
    DriverOptions::File(FileOptions {
        filename: filename.to_owned(),
        ..FileOptions::default()
    })
}

/// Options to open an image by its name; without a format it is found out from the content.
pub async fn format_options(
    graph: &Arc<Graph>,
    filename: &str,
    format: Option<&str>,
    backing: BackingRef,
) -> Result<NodeOptions, Error> {
    let driver = match by_name::read(filename).map_err(generic)? {
        Name::Description(description) => {
            return graph.parse_description(description, format).map_err(generic);
        }
        Name::Server(server) => DriverOptions::Nbd(server),
        Name::Path(path) => file_driver(path),
    };
    let file = NodeOptions {
        driver,
        ..NodeOptions::default()
    };
    let format = match (format, &file.driver) {
        (Some(format), _) => format,
        (None, DriverOptions::File(file)) => probe(&file.filename)?,
        (None, _) => probe_node(graph, &file).await.map_err(generic)?,
    };
    let options = |driver| NodeOptions {
        driver,
        ..NodeOptions::default()
    };
    match format {
        "qcow2" => Ok(options(DriverOptions::Qcow2(Qcow2Options {
            backing,
            ..Qcow2Options::new(NodeRef::Options(Box::new(file)))
        }))),
        "raw" => Ok(options(DriverOptions::Raw(RawOptions {
            file: NodeRef::Options(Box::new(file)),
            offset: 0,
            size: None,
        }))),
        "file" => Ok(file),
        other => Err(Error::generic(format!("Unknown driver '{other}'"))),
    }
}

/// Tells the format of what a server holds.
async fn probe_node(graph: &Arc<Graph>, options: &NodeOptions) -> Result<&'static str, BlockError> {
    let options = NodeOptions {
        read_only: Some(true),
        ..options.clone()
    };
    let node = graph.open_temporary(options).await?;
    let mut start = [0; 4];
    let read = if node.length() < 4 {
        Ok(())
    } else {
        node.read(0, &mut start).await
    };
    graph.close_if_unused(node).await;
    read?;
    Ok(if &start == QCOW2_MAGIC { "qcow2" } else { "raw" })
}

const QCOW2_MAGIC: &[u8; 4] = b"QFI\xfb";

/// Tells formats apart by their first bytes; everything without a known mark is raw.
fn probe(filename: &str) -> Result<&'static str, Error> {
    let fail =
        |error: std::io::Error| Error::generic(format!("Could not open '{filename}': {}", os_text(&error)));
    let mut start = [0; 4];
    let mut file = File::open(filename).map_err(fail)?;
    match file.read_exact(&mut start) {
        Ok(()) if &start == QCOW2_MAGIC => Ok("qcow2"),
        Ok(()) => Ok("raw"),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok("raw"),
        Err(error) => Err(fail(error)),
    }
}

fn preallocation(mode: Option<PreallocMode>) -> Preallocation {
    match mode {
        None | Some(PreallocMode::Off) => Preallocation::Off,
        Some(PreallocMode::Metadata) => Preallocation::Metadata,
        Some(PreallocMode::Falloc) => Preallocation::Falloc,
        Some(PreallocMode::Full) => Preallocation::Full,
    }
}
