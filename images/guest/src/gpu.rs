//! The accelerator by version 1 of its protocol, from sysfs alone: no driver, no library.

use crate::pci_sysfs::{Bar, Function};
use crate::spec::{self, cmd, cmd_status, reg};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

const VECTOR_ADD: &str = include_str!("../../../gpu/tests/ptx/vector_add.ptx");
/// A command may take as long as the device's watchdog lets it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Elements of the vectors: as many as two data buffers hold, so that copies come in pieces.
const ELEMENTS: u64 = 2 * spec::DATA_SIZE / 4;
const BLOCK: u64 = 256;

/// Low and high half.
const fn pair(high: u64, low: u64) -> u64 {
    high << 32 | low
}

struct Device {
    window: Bar,
}

impl Device {
    fn find() -> Result<Self> {
        let function = Function::all()?
            .into_iter()
            .find(|found| (found.vendor, found.device) == (spec::PCI_VENDOR, spec::PCI_DEVICE))
            .context("no accelerator")?;
        function.unbind();
        let window = function.map_bar(usize::from(spec::COMMAND_BAR))?;
        let device = Self { window };
        ensure!(
            device.register(reg::MAGIC) == spec::MAGIC,
            "no magic number"
        );
        Ok(device)
    }

    fn register(&self, offset: u64) -> u32 {
        self.window.read(offset, 4) as u32
    }

    /// Executes a command that succeeds, and returns its first result.
    fn run(&self, code: u32, params: &[u64]) -> Result<u64> {
        for (register, param) in (reg::PARAM0..).step_by(8).zip(params) {
            self.window.write(register, 8, *param);
        }
        self.window.write(reg::CMD, 4, code.into());
        let begin = Instant::now();
        while self.register(reg::CMD_STATUS) != cmd_status::COMPLETE {
            ensure!(begin.elapsed() < PATIENCE, "command {code:#x} hangs");
            std::thread::yield_now();
        }
        let result = self.register(reg::CMD_RESULT);
        ensure!(result == 0, "command {code:#x} answers {result}");
        Ok(self.window.read(reg::RESULT0, 8))
    }

    /// Puts bytes, and a NUL behind them, into the data buffer.
    fn put(&self, bytes: &[u8]) {
        for (offset, word) in (spec::DATA..).step_by(8).zip(bytes.chunks(8)) {
            let mut value = [0; 8];
            value[..word.len()].copy_from_slice(word);
            self.window.write(offset, 8, u64::from_le_bytes(value));
        }
        let end = spec::DATA + bytes.len() as u64;
        if end < spec::DATA + spec::DATA_SIZE {
            self.window.write(end, 1, 0);
        }
    }

    fn get(&self, bytes: u64) -> Vec<u8> {
        let words = (spec::DATA..spec::DATA + bytes).step_by(8);
        words
            .flat_map(|offset| self.window.read(offset, 8).to_le_bytes())
            .collect()
    }

    fn upload(&self, values: impl Iterator<Item = f32>) -> Result<u64> {
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        let address = self.run(cmd::MEM_ALLOC, &[bytes.len() as u64])?;
        let pieces = bytes.chunks(spec::DATA_SIZE as usize);
        for (to, piece) in (address..).step_by(spec::DATA_SIZE as usize).zip(pieces) {
            self.put(piece);
            self.run(cmd::MEM_COPY_HTOD, &[to, piece.len() as u64])?;
        }
        Ok(address)
    }

    fn download(&self, address: u64, bytes: u64) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for from in (address..address + bytes).step_by(spec::DATA_SIZE as usize) {
            let piece = spec::DATA_SIZE.min(address + bytes - from);
            self.run(cmd::MEM_COPY_DTOH, &[from, piece])?;
            let words = self.get(piece);
            let words = words.chunks_exact(4);
            values
                .extend(words.map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])));
        }
        Ok(values)
    }
}

/// Adds two vectors on the accelerator.
///
/// # Errors
/// There is none, or a command fails.
pub fn version_1() -> Result<bool> {
    let device = Device::find()?;
    device.run(cmd::INIT, &[])?;
    ensure!(device.run(cmd::GET_DEVICE_COUNT, &[])? == 1, "one device");
    device.run(cmd::CTX_CREATE, &[])?;
    let free = device.window.read(reg::FREE_MEM, 8);
    let a = device.upload((0..ELEMENTS).map(|i| i as f32))?;
    let b = device.upload((0..ELEMENTS).map(|i| (7 * i) as f32))?;
    let c = device.run(cmd::MEM_ALLOC, &[4 * ELEMENTS])?;
    device.put(VECTOR_ADD.as_bytes());
    let module = device.run(cmd::MODULE_LOAD_PTX, &[])?;
    device.put(b"vector_add");
    let function = device.run(cmd::FUNC_GET, &[module])?;
    let arguments = [a, b, c, ELEMENTS].map(u64::to_le_bytes).concat();
    device.put(&arguments);
    let grid = pair(1, ELEMENTS.div_ceil(BLOCK));
    let launch = [function, grid, pair(BLOCK, 1), pair(1, 1), pair(4, 0)];
    device.run(cmd::LAUNCH_KERNEL, &launch)?;
    device.run(cmd::CTX_SYNC, &[])?;
    let sum = device.download(c, 4 * ELEMENTS)?;
    let expected = (0..ELEMENTS).map(|i| (8 * i) as f32);
    let right = sum
        .iter()
        .copied()
        .zip(expected)
        .filter(|(is, be)| is == be);
    let right = right.count() as u64;
    for buffer in [a, b, c] {
        device.run(cmd::MEM_FREE, &[buffer])?;
    }
    let freed = device.window.read(reg::FREE_MEM, 8) == free;
    let total = device.window.read(reg::TOTAL_MEM, 8);
    println!("{{\"elements\":{ELEMENTS},\"right\":{right},\"memory\":{total},\"freed\":{freed}}}");
    Ok(right == ELEMENTS && freed)
}
