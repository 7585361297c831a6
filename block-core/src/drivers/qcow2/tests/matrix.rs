//! Images that QEMU made: read, written, and read by QEMU again.

use super::basic::{assert_content, compare, play};
use super::memory::Memory;
use super::{Folder, Random, assert_check, qemu};
use crate::driver::Driver;
use crate::drivers::qcow2::{OpenOptions, Qcow2};

#[tokio::test]
async fn qemus_images_are_read_and_written() {
    let options = [
        "compat=0.10",
        "compat=1.1",
        "compat=1.1,cluster_size=512",
        "compat=1.1,cluster_size=4k,refcount_bits=1",
        "cluster_size=2M,refcount_bits=64",
        "refcount_bits=2,cluster_size=1k",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=falloc,cluster_size=4k",
        "compression_type=zstd",
        "cluster_size=8k,compat=0.10",
    ];
    for option in options {
        let folder = Folder::new();
        let path = folder.path("image.qcow2");
        let name = path.to_str().unwrap();
        let arguments = ["create", "-q", "-f", "qcow2", "-o", option, name, "8M"];
        let Some((code, text)) = qemu("qemu-img", &arguments) else {
            return;
        };
        assert_eq!(code, 0, "{text}");
        let io = [
            "-f",
            "qcow2",
            "-c",
            "write -P 1 0 1M",
            "-c",
            "write -P 2 3333k 77k",
            "-c",
            "write -z 512k 100k",
            "-c",
            "write -c -P 3 4M 2M",
            "-c",
            "discard 5M 64k",
            name,
        ];
        // Compressed writes onto preallocated clusters fail; the rest is done all the same.
        let (_, text) = qemu("qemu-io", &io).unwrap();
        let raw = folder.path("content.raw");
        let arguments = ["convert", "-f", "qcow2", "-O", "raw", name, raw.to_str().unwrap()];
        let (code, _) = qemu("qemu-img", &arguments).unwrap();
        assert_eq!(code, 0, "{text}");
        let mut model = std::fs::read(&raw).unwrap();
        let file = Memory::with(std::fs::read(&path).unwrap());
        let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
        assert_content(&image, &model).await;
        play(&image, &mut model, &mut Random::new(8), 120).await;
        assert_content(&image, &model).await;
        image.close().await.unwrap();
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, false);
        compare(&folder, &path, &model);
    }
}

/// Every cluster size, each refcount width in turn, both compressions, every preallocation, on a disk that ends within
/// a cluster.
#[tokio::test]
async fn every_cluster_size_and_refcount_width() {
    const SIZE: usize = (3 << 20) + 512;
    for (nth, bits) in (9..=21).enumerate() {
        let width = 1 << (nth % 7);
        let compression = ["zlib", "zstd"][nth % 2];
        let preallocation = ["off", "metadata", "falloc", "full"][nth % 4];
        let option = format!(
            "cluster_size={},refcount_bits={width},compression_type={compression},preallocation={preallocation}",
            1u32 << bits
        );
        let folder = Folder::new();
        let path = folder.path("image.qcow2");
        let name = path.to_str().unwrap();
        let size = SIZE.to_string();
        let arguments = ["create", "-q", "-f", "qcow2", "-o", &option, name, &size];
        let Some((code, text)) = qemu("qemu-img", &arguments) else {
            return;
        };
        assert_eq!(code, 0, "{option}: {text}");
        let write = [
            "-f",
            "qcow2",
            "-c",
            "write -P 9 100k 1M",
            "-c",
            "write -z 300k 200k",
            name,
        ];
        let (code, text) = qemu("qemu-io", &write).unwrap();
        assert_eq!(code, 0, "{option}: {text}");
        let mut model = vec![0u8; SIZE];
        model[100 << 10..1124 << 10].fill(9);
        model[300 << 10..500 << 10].fill(0);
        let file = Memory::with(std::fs::read(&path).unwrap());
        let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
        assert_content(&image, &model).await;
        play(&image, &mut model, &mut Random::new(bits), 40).await;
        assert_content(&image, &model).await;
        image.close().await.unwrap();
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, false);
        compare(&folder, &path, &model);
    }
}

/// What QEMU put into a snapshot is there after we have written over it.
#[tokio::test]
async fn snapshots_of_qemu_outlive_our_writes() {
    for option in ["compat=1.1", "compat=0.10", "cluster_size=4k,refcount_bits=2"] {
        let folder = Folder::new();
        let path = folder.path("image.qcow2");
        let name = path.to_str().unwrap();
        let arguments = ["create", "-q", "-f", "qcow2", "-o", option, name, "4M"];
        let Some((code, text)) = qemu("qemu-img", &arguments) else {
            return;
        };
        assert_eq!(code, 0, "{text}");
        let write = [
            "-f",
            "qcow2",
            "-c",
            "write -P 5 0 1M",
            "-c",
            "write -P 6 2M 100k",
            name,
        ];
        assert_eq!(qemu("qemu-io", &write).unwrap().0, 0);
        let mut then = vec![0u8; 4 << 20];
        then[..1 << 20].fill(5);
        then[2 << 20..(2 << 20) + (100 << 10)].fill(6);
        assert_eq!(qemu("qemu-img", &["snapshot", "-c", "then", name]).unwrap().0, 0);
        let write = ["-f", "qcow2", "-c", "write -P 7 512k 1M", name];
        assert_eq!(qemu("qemu-io", &write).unwrap().0, 0);
        let mut model = then.clone();
        model[512 << 10..1536 << 10].fill(7);
        let file = Memory::with(std::fs::read(&path).unwrap());
        let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
        assert_content(&image, &model).await;
        play(&image, &mut model, &mut Random::new(3), 80).await;
        image.close().await.unwrap();
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, false);
        compare(&folder, &path, &model);
        assert_eq!(qemu("qemu-img", &["snapshot", "-a", "then", name]).unwrap().0, 0);
        compare(&folder, &path, &then);
    }
}

#[tokio::test]
async fn shorter_backing_files_show_through() {
    let folder = Folder::new();
    let (base, path) = (folder.path("base.raw"), folder.path("image.qcow2"));
    let content: Vec<u8> = (0..1_000_448u32).map(|at| (at / 512).to_le_bytes()[0]).collect();
    std::fs::write(&base, &content).unwrap();
    for option in ["compat=0.10", "compat=1.1,cluster_size=4k", "compat=1.1"] {
        let (base, name) = (base.to_str().unwrap(), path.to_str().unwrap());
        let arguments = [
            "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", "-o", option, name, "2M",
        ];
        let Some((code, text)) = qemu("qemu-img", &arguments) else {
            return;
        };
        assert_eq!(code, 0, "{text}");
        let file = Memory::with(std::fs::read(&path).unwrap());
        let image = Qcow2::open(file.clone(), OpenOptions::default()).await.unwrap();
        assert_eq!(
            image.backing_file(),
            Some((base.to_owned(), Some("raw".to_owned())))
        );
        image.set_backing(Some(Memory::with(content.clone())));
        let mut model = content.clone();
        model.resize(2 << 20, 0);
        assert_content(&image, &model).await;
        play(&image, &mut model, &mut Random::new(2), 200).await;
        assert_content(&image, &model).await;
        image.close().await.unwrap();
        std::fs::write(&path, file.bytes()).unwrap();
        assert_check(&path, false);
        compare(&folder, &path, &model);
    }
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() {
    let folder = Folder::new();
    let (path, data) = (folder.path("image.qcow2"), folder.path("data"));
    let name = path.to_str().unwrap();
    let data = format!("data_file={}", data.to_str().unwrap());
    for (option, text) in [
        (data.as_str(), "Unsupported qcow2 feature(s): external data file"),
        (
            "extended_l2=on",
            "Unsupported qcow2 feature(s): extended L2 entries",
        ),
    ] {
        let Some((code, said)) = qemu(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", "-o", option, name, "1M"],
        ) else {
            return;
        };
        assert_eq!(code, 0, "{said}");
        let file = Memory::with(std::fs::read(&path).unwrap());
        let error = Qcow2::open(file, OpenOptions::default()).await.unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    let luks = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "--object",
        "secret,id=s,data=secret",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        name,
        "1M",
    ];
    let (code, said) = qemu("qemu-img", &luks).unwrap();
    assert_eq!(code, 0, "{said}");
    let file = Memory::with(std::fs::read(&path).unwrap());
    let error = Qcow2::open(file, OpenOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("ncrypt"), "{error}");
}
