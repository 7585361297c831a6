//! Making images: the `blockdev-create` job, and images that other commands make on the way.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use block_core::driver::Preallocation;
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
                let options = qcow2_options(&options)?;
                match reference {
                    NodeRef::Name(name) => {
                        let node = graph.find(name.as_str()).ok_or_else(|| {
                            BlockError::new(
                                ErrorKind::NotFound,
                                format!("Cannot find device='{name}' nor node-name='{name}'"),
                            )
                        })?;
                        write_qcow2(&graph, &node, &options).await
                    }
                    NodeRef::Options(node) => {
                        let node = graph.open_temporary(*node).await?;
                        let result = write_qcow2(&graph, &node, &options).await;
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

fn qcow2_options(options: &BlockdevCreateOptionsQcow2) -> Result<CreateOptions, BlockError> {
    let unsupported = |text: &str| Err(BlockError::new(ErrorKind::Unsupported, text));
    if options.encrypt.is_some() {
        return unsupported("Encrypted qcow2 images are not supported");
    }
    if options.data_file_raw == Some(true) && options.data_file.is_none() {
        return unsupported("data-file-raw requires data-file");
    }
    if options.data_file.is_some() {
        return unsupported("External data files are not supported");
    }
    if options.extended_l2 == Some(true) {
        let cluster = options
            .cluster_size
            .unwrap_or(CreateOptions::default().cluster_bytes);
        if cluster < 16 << 10 {
            return unsupported(
                "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes",
            );
        }
        return unsupported("Extended L2 entries are not supported");
    }
    let defaults = CreateOptions::default();
    let cluster_bytes = options.cluster_size.unwrap_or(defaults.cluster_bytes);
    // No width is negative: it is refused as any other that does not exist.
    let refcount_bits = options
        .refcount_bits
        .map_or(defaults.refcount_bits, |bits| u64::try_from(bits).unwrap_or(0));
    Ok(CreateOptions {
        size: options.size,
        version: if options.version == Some(schema::BlockdevQcow2Version::V2) {
            2
        } else {
            3
        },
        cluster_bytes,
        refcount_bits,
        backing_file: options.backing_file.clone(),
        backing_format: options.backing_fmt.map(|format| format.as_str().to_owned()),
        preallocation: preallocation(options.preallocation),
        lazy_refcounts: options.lazy_refcounts.unwrap_or(false),
        compression: match options.compression_type {
            Some(schema::Qcow2CompressionType::Zstd) => qcow2::Compression::Zstd,
            Some(schema::Qcow2CompressionType::Zlib) | None => qcow2::Compression::Zlib,
        },
    })
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
    match format {
        "qcow2" | "raw" | "file" => {}
        "host_device" | "null-aio" | "null-co" | "nbd" | "throttle" | "copy-before-write"
        | "snapshot-access" | "blkdebug" => {
            return Err(Error::generic(format!(
                "Format driver '{format}' does not support image creation"
            )));
        }
        _ => return Err(Error::generic(format!("Unknown file format '{format}'"))),
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
    file::create(&CreateFile {
        filename: filename.to_owned(),
        size: if is_qcow2 { 0 } else { size },
        preallocation: Preallocation::Off,
        nocow: false,
        extent_size_hint: None,
    })
    .await
    .map_err(generic)?;
    if !is_qcow2 {
        return Ok(());
    }
    let options = NodeOptions {
        driver: file_driver(filename),
        ..NodeOptions::default()
    };
    let node = graph.open_temporary(options).await.map_err(generic)?;
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

/// Options to open an image file; without a format it is found out from the content.
pub fn format_options(
    filename: &str,
    format: Option<&str>,
    backing: BackingRef,
) -> Result<DriverOptions, Error> {
    let format = match format {
        Some(format) => format,
        None => probe(filename)?,
    };
    let file = NodeRef::Options(Box::new(NodeOptions {
        driver: file_driver(filename),
        ..NodeOptions::default()
    }));
    match format {
        "qcow2" => Ok(DriverOptions::Qcow2(Qcow2Options {
            backing,
            ..Qcow2Options::new(file)
        })),
        "raw" => Ok(DriverOptions::Raw(RawOptions {
            file,
            offset: 0,
            size: None,
        })),
        "file" => Ok(file_driver(filename)),
        other => Err(Error::generic(format!("Unknown driver '{other}'"))),
    }
}

/// Tells formats apart by their first bytes; everything without a known mark is raw.
fn probe(filename: &str) -> Result<&'static str, Error> {
    let fail =
        |error: std::io::Error| Error::generic(format!("Could not open '{filename}': {}", os_text(&error)));
    let mut start = [0; 4];
    let mut file = File::open(filename).map_err(fail)?;
    match file.read_exact(&mut start) {
        Ok(()) if &start == b"QFI\xfb" => Ok("qcow2"),
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
