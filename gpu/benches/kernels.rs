//! How fast kernels run on this host: through the compiler, through the same C at -O3, and through PoCL.
//!
//! `cargo bench -p gpu --bench kernels`; `cargo xtask bench` gives it PoCL. `MEMU_POCL` names a tree of Debian packages
//! with `pocl-opencl-icd`, `ocl-icd-libopencl1` and `opencl-c-headers`; without it there is no PoCL to compare with. Names of
//! kernels behind `--` limit it to these.
//! Times are of all processors together, so that other load on the host counts little. Every line is a figure as a JSON
//! object, for `xtask`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gpu::DeviceMemory;
use gpu::ptx::{Context, Function, LaunchConfig, Module, Options, Tier};

const DEVICE: &str = include_str!("kernels/device.ptx");

// As in `kernels/sizes.h`.
const VECTOR: u32 = 1 << 24;
const SGEMM: u32 = 512;
const OPTIONS: u32 = 1 << 22;
const NBODY: u32 = 8192;
const ROUNDS: usize = 7;
/// How often the compiler, C and PoCL take turns: kernels that wait for memory are as fast as the host's other users let them
/// be, which changes from minute to minute. What is compared is therefore what a turn gave all of them, and of the turns'
/// ratios the middle one counts.
const TURNS: usize = 5;

/// Arrays that all kernels work on.
const ARRAYS: u64 = 5;

struct Kernel {
    name: &'static str,
    grid: [u32; 3],
    block: [u32; 3],
    /// Arrays among the parameters, whether a factor follows them, and the last parameter.
    arrays: usize,
    factor: bool,
    count: u32,
}

const KERNELS: [Kernel; 6] = [
    Kernel {
        name: "vector_add",
        grid: [VECTOR / 256, 1, 1],
        block: [256, 1, 1],
        arrays: 3,
        factor: false,
        count: VECTOR,
    },
    Kernel {
        name: "saxpy",
        grid: [VECTOR / 256, 1, 1],
        block: [256, 1, 1],
        arrays: 2,
        factor: true,
        count: VECTOR,
    },
    Kernel {
        name: "sgemm",
        grid: [SGEMM / 16, SGEMM / 16, 1],
        block: [16, 16, 1],
        arrays: 3,
        factor: false,
        count: SGEMM,
    },
    Kernel {
        name: "reduction",
        grid: [256, 1, 1],
        block: [256, 1, 1],
        arrays: 2,
        factor: false,
        count: VECTOR,
    },
    Kernel {
        name: "black_scholes",
        grid: [OPTIONS / 256, 1, 1],
        block: [256, 1, 1],
        arrays: 5,
        factor: false,
        count: OPTIONS,
    },
    Kernel {
        name: "nbody",
        grid: [NBODY / 256, 1, 1],
        block: [256, 1, 1],
        arrays: 2,
        factor: false,
        count: NBODY,
    },
];

type Seconds = BTreeMap<String, f64>;

fn main() {
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/kernels");
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let tree = std::env::var_os("MEMU_POCL").map(PathBuf::from);
    let (mut ours, mut c, mut pocl) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push(compiled(&names));
        c.push(plain_c(&sources, &scratch, &names));
        pocl.extend(
            tree.as_ref()
                .map(|tree| through_pocl(&sources, &scratch, tree, &names)),
        );
    }
    let mut logarithms = 0.0;
    for kernel in chosen(&names) {
        let name = kernel.name;
        let target = (name == "vector_add").then_some(1.2);
        figure(name, &ours, "C at -O3", &c, target);
        if tree.is_some() {
            let ratio = figure(name, &ours, "PoCL", &pocl, None);
            logarithms += ratio.map_or(0.0, f64::ln);
        }
    }
    if tree.is_some() {
        let mean = (logarithms / chosen(&names).count() as f64).exp();
        println!(
            r#"{{"name": "ptx kernels, geometric mean", "value": {mean:.3}, "unit": "of the time through PoCL", "ratio": {mean:.3}, "target": "at most 1", "ok": {}}}"#,
            mean <= 1.0
        );
    }
}

/// The kernels of these names; all if there are none.
fn chosen(names: &[String]) -> impl Iterator<Item = &'static Kernel> {
    KERNELS
        .iter()
        .filter(|kernel| names.is_empty() || names.iter().any(|name| name == kernel.name))
}

/// One figure: best times, and the middle of the turns' ratios. The ratio is of times, so less is better.
fn figure(
    name: &str,
    ours: &[Seconds],
    peer: &str,
    theirs: &[Seconds],
    target: Option<f64>,
) -> Option<f64> {
    let times = |turns: &[Seconds]| -> Vec<f64> {
        let times = turns.iter().filter_map(|times| times.get(name));
        times.copied().collect()
    };
    let (ours, theirs) = (times(ours), times(theirs));
    let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
    ratios.sort_by(f64::total_cmp);
    let Some(&ratio) = ratios.get(ratios.len() / 2) else {
        println!("ptx {name}: no time of {peer}");
        return None;
    };
    let ok = target.is_none_or(|target| ratio <= target);
    let target = target.map_or(String::new(), |target| {
        format!(r#""target": "at most {target} of the peer's time", "#)
    });
    let best = |times: &[f64]| 1e3 * times.iter().copied().fold(f64::INFINITY, f64::min);
    println!(
        r#"{{"name": "ptx {name}", "value": {:.3}, "unit": "ms", "peer": "{peer}: {:.3} ms", "ratio": {ratio:.3}, {target}"ok": {ok}}}"#,
        best(&ours),
        best(&theirs)
    );
    Some(ratio)
}

/// The best time of each kernel on the compiler.
fn compiled(names: &[String]) -> Seconds {
    let memory = DeviceMemory::new(ARRAYS * u64::from(VECTOR) * 4 + (1 << 20)).unwrap();
    let options = Options {
        watchdog: Some(Duration::from_secs(600)),
        tier: Tier::Compiler,
        ..Options::default()
    };
    let context = Context::new(memory, options);
    let module = Module::load(&context, DEVICE).unwrap();
    let arrays: Vec<u64> = (0..ARRAYS).map(|number| filled(&context, number)).collect();
    let mut times = Seconds::new();
    for kernel in chosen(names) {
        let function = module.function(kernel.name).unwrap();
        if let Err(uncovered) = function.compile(kernel.block) {
            println!("ptx {}: {uncovered}", kernel.name);
        }
        let params = parameters(kernel, &function, &arrays);
        let config = LaunchConfig {
            grid: kernel.grid,
            block: kernel.block,
            dynamic_shared: 0,
        };
        let best = (0..ROUNDS)
            .map(|_| {
                let start = processor_seconds();
                function.launch(&config, &params).unwrap();
                processor_seconds() - start
            })
            .fold(f64::INFINITY, f64::min);
        times.insert(kernel.name.to_owned(), best);
    }
    times
}

/// Time that all threads of this process have had on a processor.
fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn filled(context: &Arc<Context>, number: u64) -> u64 {
    let address = context.alloc(u64::from(VECTOR) * 4).unwrap();
    let mut bytes = vec![0; VECTOR as usize * 4];
    for (i, value) in bytes.as_chunks_mut().0.iter_mut().enumerate() {
        *value = (1.0 + ((i as u64 * 7 + number * 13) % 101) as f32 * 0.25).to_le_bytes();
    }
    context.write(address, &bytes).unwrap();
    address
}

fn parameters(kernel: &Kernel, function: &Function, arrays: &[u64]) -> Vec<u8> {
    let mut values: Vec<Vec<u8>> = arrays[..kernel.arrays]
        .iter()
        .map(|array| array.to_le_bytes().to_vec())
        .collect();
    if kernel.factor {
        values.push(2.5f32.to_le_bytes().to_vec());
    }
    values.push(kernel.count.to_le_bytes().to_vec());
    let mut params = Vec::new();
    for (&(offset, _), value) in function.params().iter().zip(&values) {
        params.resize(offset as usize, 0);
        params.extend(value);
    }
    params
}

/// The best times of the same kernels in C, by this host's compiler.
fn plain_c(sources: &Path, scratch: &Path, names: &[String]) -> Seconds {
    let program = scratch.join("kernels-host");
    run(Command::new("cc")
        .args(["-O3", "-pthread", "-o"])
        .arg(&program)
        .arg(sources.join("host.c"))
        .arg("-lm"));
    times(Command::new(&program).args(names))
}

/// The best times of the same kernels through PoCL, in a tree of its packages.
fn through_pocl(sources: &Path, scratch: &Path, tree: &Path, names: &[String]) -> Seconds {
    run(Command::new("cc")
        .args(["-O2", "-Wl,--allow-shlib-undefined", "-o"])
        .arg(scratch.join("opencl"))
        .arg(sources.join("opencl.c"))
        .arg("-idirafter")
        .arg(tree.join("usr/include"))
        .arg(tree.join("usr/lib/x86_64-linux-gnu/libOpenCL.so.1")));
    std::fs::copy(sources.join("kernels.cl"), scratch.join("kernels.cl")).unwrap();
    // PoCL finds its parts and the linker by absolute paths, so it runs where they are right.
    let inside = "for dir in proc dev sys tmp; do mkdir -p \"$0/$dir\"; done
        for link in lib lib64 bin; do [ -e \"$0/$link\" ] || ln -s \"usr/$link\" \"$0/$link\"; done
        for dir in proc dev sys; do mount --rbind \"/$dir\" \"$0/$dir\" || exit 1; done
        mount --bind \"$1\" \"$0/tmp\" || exit 1
        HOME=/tmp; tree=$0; shift; export HOME; exec chroot \"$tree\" /tmp/opencl /tmp/kernels.cl \"$@\"";
    times(
        Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", inside])
            .arg(tree)
            .arg(scratch)
            .args(names),
    )
}

fn run(command: &mut Command) {
    let status = command.status().expect("a C compiler is needed");
    assert!(status.success(), "{command:?}: {status}");
}

/// Lines of a name and a time.
fn times(command: &mut Command) -> Seconds {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| {
            let (name, seconds) = line.split_once(' ')?;
            Some((name.to_owned(), seconds.parse().ok()?))
        })
        .collect()
}
