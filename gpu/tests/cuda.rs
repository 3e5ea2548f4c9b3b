//! The `cuda` backend, on the stand-in driver of `examples/`, or on the driver that `MEMU_HETGPU_LIB` names.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use gpu::Error;
use gpu::backend::cuda::Cuda;
use gpu::backend::{Backend, Context, LaunchConfig, Placement};
use vm_memory::VolatileSlice;

const VECTOR_ADD: &str = include_str!("ptx/vector_add.ptx");
const MEMORY: u64 = 1 << 20;

/// The driver of a real GPU, if there is one to test on.
fn real() -> Option<PathBuf> {
    std::env::var_os("MEMU_HETGPU_LIB").map(PathBuf::from)
}

/// Cargo builds examples before the tests, beside them.
fn library() -> PathBuf {
    real().unwrap_or_else(|| {
        let test = std::env::current_exe().unwrap();
        let target = test.parent().and_then(Path::parent).unwrap();
        let library = target.join("examples/libstand_in_driver.so");
        let how = "cargo test -p gpu builds it, and so does cargo build -p gpu --examples";
        assert!(library.exists(), "no {}: {how}", library.display());
        library
    })
}

fn memory() -> Arc<File> {
    let file = tempfile();
    file.set_len(MEMORY).unwrap();
    Arc::new(file)
}

/// A file without a name.
fn tempfile() -> File {
    let path = std::env::temp_dir().join(format!(
        "memu-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

fn open(watchdog: Option<Duration>) -> Cuda {
    Cuda::open(&library(), 0, &memory(), MEMORY, watchdog).unwrap()
}

fn write(context: &dyn Context, to: u64, bytes: &[u8]) -> Result<(), Error> {
    let mut bytes = bytes.to_vec();
    context.write(to, VolatileSlice::from(&mut bytes[..]))
}

fn read(context: &dyn Context, from: u64, bytes: usize) -> Vec<u8> {
    let mut data = vec![0xee; bytes];
    context
        .read(from, VolatileSlice::from(&mut data[..]))
        .unwrap();
    data
}

fn floats(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

fn once(grid: u32, block: u32) -> LaunchConfig {
    LaunchConfig {
        grid: [grid, 1, 1],
        block: [block, 1, 1],
        dynamic_shared: 0,
    }
}

#[test]
fn a_vector_sum_runs_on_the_drivers_device() {
    let device = open(None);
    let context = device.context().unwrap();
    let module = context.load(VECTOR_ADD).unwrap();
    let kernel = module.function("vector_add").unwrap();
    assert_eq!(kernel.params(), [(0, 8), (8, 8), (16, 8), (24, 8)]);
    assert_eq!(kernel.attributes().max_threads_per_block, 1024);
    let n = 10_000u64;
    let buffers = [0; 3].map(|_| context.alloc(4 * n, Placement::Device).unwrap());
    assert_eq!(read(&*context, buffers[0], 8), [0; 8], "memory is zero");
    write(&*context, buffers[0], &floats((0..n).map(|i| i as f32))).unwrap();
    write(
        &*context,
        buffers[1],
        &floats((0..n).map(|i| (4 * i) as f32)),
    )
    .unwrap();
    let [a, b, c] = buffers;
    let params: Vec<u8> = [a, b, c, n]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    kernel.launch(&once(40, 256), &params).unwrap();
    assert_eq!(
        read(&*context, c, 4 * n as usize),
        floats((0..n).map(|i| (5 * i) as f32))
    );
    assert!(kernel.launch(&once(1, 1), &params[..20]).is_err());
    for buffer in buffers {
        context.free(buffer).unwrap();
    }
    println!("{:?}", device.properties());
}

#[test]
fn memory_is_checked_before_the_driver_sees_it() {
    let device = open(None);
    let (context, other) = (device.context().unwrap(), device.context().unwrap());
    let own = context.alloc(1000, Placement::Device).unwrap();
    let foreign = other.alloc(1000, Placement::Device).unwrap();
    for (address, bytes) in [(own + 999, 2), (foreign, 1), (0, 1), (u64::MAX, 1)] {
        let refused = write(&*context, address, &vec![0; bytes]).unwrap_err();
        assert_eq!(refused.code(), 1, "{address:#x}");
    }
    assert_eq!(context.copy(own, foreign, 1).unwrap_err().code(), 1);
    assert_eq!(context.set(own, &[1, 2, 3], 1).unwrap_err().code(), 1);
    assert_eq!(context.free(foreign).unwrap_err().code(), 1);
    assert_eq!(context.alloc(0, Placement::Device).unwrap_err().code(), 1);
    assert_eq!(
        context
            .alloc(1 << 50, Placement::Device)
            .unwrap_err()
            .code(),
        2
    );
    context.set(own, &[1, 2], 500).unwrap();
    let pattern: Vec<u8> = (0..100).collect();
    write(&*context, own, &pattern).unwrap();
    context.copy(own + 10, own, 100).unwrap();
    assert_eq!(read(&*context, own + 10, 100), pattern, "they overlap");
    assert_eq!(read(&*context, own + 110, 2), [1, 2]);
}

#[test]
fn a_refused_module_has_a_log() {
    let device = open(None);
    let context = device.context().unwrap();
    let refused = context.load(".version 7.5\n.target sm_75\n.entry k() { nonsense; }");
    let error = refused.err().unwrap();
    assert_eq!(error.code(), 218);
    assert!(error.log().unwrap().contains("nonsense"), "{error}");
    let module = context.load(VECTOR_ADD).unwrap();
    assert_eq!(module.function("no_such").err().unwrap().code(), 500);
}

#[test]
fn a_variable_can_be_copied_to() {
    let device = open(None);
    let context = device.context().unwrap();
    let text = ".version 7.5\n.target sm_75\n.address_size 64\n.visible .global .align 4 .u32 x[4] = {7, 8, 9, 10};\n";
    let module = context.load(text).unwrap();
    let (address, bytes) = module.global("x").unwrap();
    assert_eq!(bytes, 16);
    assert_eq!(read(&*context, address + 4, 4), [8, 0, 0, 0]);
}

#[test]
fn the_watchdog_gives_a_kernel_up() {
    // On a real device the kernel would run on until the process ends.
    if real().is_some() {
        return;
    }
    let device = open(Some(Duration::from_millis(20)));
    let context = device.context().unwrap();
    let spin = ".version 7.5\n.target sm_75\n.entry spin() { $L: bra $L; }";
    let kernel = context.load(spin).unwrap().function("spin").unwrap();
    assert_eq!(kernel.launch(&once(1, 1), &[]).unwrap_err().code(), 702);
    assert_eq!(context.check().unwrap_err().code(), 702);
    assert!(device.context().unwrap().check().is_ok());
}

#[test]
fn mappable_memory_is_where_the_guest_is_told() {
    const NAME: &str = "mappable_memory_is_where_the_guest_is_told";
    const ALONE: &str = "MEMU_TEST_ALONE";
    // A process has room for one device's, and the other tests of this one have devices: it runs in one of its own.
    if std::env::var_os(ALONE).is_none() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env(ALONE, "")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    let file = memory();
    let device = Cuda::open(&library(), 0, &file, MEMORY, None).unwrap();
    let context = device.context().unwrap();
    let first = context.alloc(1, Placement::Mappable).unwrap();
    let address = context.alloc(5000, Placement::Mappable).unwrap();
    assert_eq!(
        context.address_range(address + 8191),
        Ok(address..address + 8192)
    );
    assert!(address.is_multiple_of(4096) && first != address);
    // The guest maps the file, from the offset that the address tells.
    let pattern: Vec<u8> = (0..5000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    write(&*context, address, &pattern).unwrap();
    let mut seen = vec![0; pattern.len()];
    file.read_exact_at(&mut seen, address - gpu::memory::BASE)
        .unwrap();
    assert!(seen == pattern);
    file.write_all_at(b"a guest's", address - gpu::memory::BASE + 4096)
        .unwrap();
    assert_eq!(read(&*context, address + 4096, 9), b"a guest's");
    context.free(address).unwrap();
    context.free(first).unwrap();
}

#[test]
fn what_is_missing_is_said_at_the_start() {
    let open = |path: &str, ordinal| {
        let opened = Cuda::open(Path::new(path), ordinal, &memory(), MEMORY, None);
        opened.err().unwrap().to_string()
    };
    assert!(open("/no/such/libcuda.so", 0).contains("/no/such/libcuda.so"));
    assert!(open("libcuda.so", 0).contains("not absolute"));
    let libc = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"];
    if let Some(libc) = libc.into_iter().find(|path| Path::new(path).exists()) {
        assert!(open(libc, 0).contains("cuInit"), "{}", open(libc, 0));
    }
    if real().is_none() {
        let refused = open(library().to_str().unwrap(), 7);
        assert_eq!(refused, "there is no device 7: the driver has 1");
    }
}
