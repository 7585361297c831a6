//! A drop-in for qemu-storage-daemon.
