//! A whole device on the real KVM, but for the guest: register writes in, effects applied.

use devices::virtio::spec::DeviceType;
use pci::Function;
use vm_memory::GuestAddress;

use super::*;

const BAR: u64 = 0x80_0000_0000;

fn host() -> Host {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    Host {
        vm: Arc::new(Vm::new().unwrap()),
        memory: GuestMemoryAtomic::new(memory),
    }
}

/// Writes a register of configuration space and applies what follows.
fn configure(function: &mut PciFunction, handle: &Handle, offset: u16, value: u32) {
    let mut effects = Vec::new();
    function.config_write(offset, &value.to_le_bytes(), &mut effects);
    for effect in effects {
        handle.apply(effect, function);
    }
}

#[test]
fn doorbells_follow_the_bar() {
    let (mut function, handle) = rng(&host()).unwrap();
    let doorbells = |handle: &Handle| handle.doorbells.lock().unwrap().len();
    assert_eq!(doorbells(&handle), 0);
    configure(&mut function, &handle, 0x14, (BAR >> 32) as u32);
    configure(&mut function, &handle, 0x04, 0x6);
    assert_eq!(doorbells(&handle), 1);
    configure(&mut function, &handle, 0x10, 0x10_0000);
    assert_eq!(doorbells(&handle), 1);
    configure(&mut function, &handle, 0x04, 0);
    assert_eq!(doorbells(&handle), 0);
}

#[test]
fn a_masked_interrupt_is_pending_until_the_device_is_reset() {
    use devices::virtio::Interrupt;
    let (function, handle) = rng(&host()).unwrap();
    handle.vectors.signal(1);
    assert!(handle.vectors.is_pending(1));
    assert!(!handle.vectors.is_pending(0));
    handle.apply(Effect::Reset, &function);
    assert!(!handle.vectors.is_pending(1));
}

#[test]
fn a_disk_is_made_from_plain_options() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let options = DiskOptions {
        path: image.path().into(),
        read_only: true,
        id: "root".into(),
    };
    let (function, _handle) = block(&host(), &options).unwrap();
    assert_eq!(function.config().u16(2), 0x1040 + DeviceType::Block as u16);
}
