//! Initialization, versions, devices, errors and the addresses of functions.

use std::ffi::c_char;

use super::attributes;
use crate::driver::Driver;
use crate::ffi::{Address, In, Out, StaticText, Text, driver_api};
use crate::proc_address::{self, Found};
use crate::{Error, Result};

/// A device by ordinal; no context is needed.
fn properties(ordinal: i32) -> Result<&'static crate::transport::Properties> {
    Ok(Driver::get()?.device(ordinal)?.properties())
}

/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`.
const PER_THREAD: u64 = 2;

fn proc_address(symbol: Text, function: Out<Address>, version: i32, flags: u64) -> Result<Found> {
    let found = proc_address::find(&symbol.get()?, version, flags & PER_THREAD != 0);
    let address = match found {
        Found::Function(entry) => Address(entry.address as u64),
        _ => Address(0),
    };
    function.set(address)?;
    Ok(found)
}

driver_api! {
    2000 fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        Driver::initialize().map(|_| ())
    }

    2020 fn cuDriverGetVersion(version: Out<i32>) {
        version.set(Driver::version())
    }

    6000 fn cuGetErrorString(error: u32, text: Out<StaticText>) {
        let known = Error::text_of(error);
        text.set(known.map_or(StaticText::NULL, StaticText::from))?;
        known.map(|_| ()).ok_or(Error::INVALID_VALUE)
    }

    6000 fn cuGetErrorName(error: u32, name: Out<StaticText>) {
        let known = Error::name_of(error);
        name.set(known.map_or(StaticText::NULL, StaticText::from))?;
        known.map(|_| ()).ok_or(Error::INVALID_VALUE)
    }

    11030 fn cuGetProcAddress(symbol: Text, function: Out<Address>, version: i32, flags: u64) {
        match proc_address(symbol, function, version, flags)? {
            Found::Function(_) => Ok(()),
            _ => Err(Error::NOT_FOUND),
        }
    }

    12000 fn cuGetProcAddress_v2(
        symbol: Text,
        function: Out<Address>,
        version: i32,
        flags: u64,
        status: Out<u32>,
    ) {
        let found = proc_address(symbol, function, version, flags)?;
        status.set_if_wanted(found.status());
        match found {
            Found::Function(_) => Ok(()),
            _ => Err(Error::NOT_FOUND),
        }
    }

    // Tables of functions that are documented nowhere. Who asks goes on without them.
    3000 fn cuGetExportTable(table: Out<Address>, _id: In<[u8; 16]>) {
        table.set(Address(0))?;
        Err(Error::NOT_FOUND)
    }

    2000 fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        properties(ordinal)?;
        device.set(ordinal)
    }

    2000 fn cuDeviceGetCount(count: Out<i32>) {
        count.set(Driver::get()?.devices.len() as i32)
    }

    2000 fn cuDeviceGetName(name: Out<c_char>, length: i32, device: i32) {
        let length = usize::try_from(length).map_err(|_| Error::INVALID_VALUE)?;
        name.set_text(&properties(device)?.name, length)
    }

    9020 fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: i32) | 11040 cuDeviceGetUuid_v2 {
        let (domain, bus, slot) = properties(device)?.pci;
        let mut bytes = *b"MEMU accel\0\0\0\0\0\0";
        bytes[10..14].copy_from_slice(&domain.to_be_bytes());
        bytes[14..].copy_from_slice(&[bus, slot]);
        uuid.set(bytes)
    }

    3020 fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) {
        bytes.set(properties(device)?.memory as usize)
    }

    2000 fn cuDeviceGetAttribute(value: Out<i32>, attribute: i32, device: i32) {
        value.set(attributes::value(attribute, Driver::get()?.device(device)?)?)
    }

    2000 fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) {
        let (ours_major, ours_minor) = Driver::get()?.device(device)?.compute_capability();
        major.set(ours_major as i32)?;
        minor.set(ours_minor as i32)
    }

    2000 fn cuDeviceGetProperties(out: Out<attributes::Properties>, device: i32) {
        out.set(attributes::properties(Driver::get()?.device(device)?)?)
    }

    4010 fn cuDeviceGetPCIBusId(name: Out<c_char>, length: i32, device: i32) {
        let (domain, bus, slot) = properties(device)?.pci;
        let length = usize::try_from(length).map_err(|_| Error::INVALID_VALUE)?;
        name.set_text(&format!("{domain:04X}:{bus:02X}:{slot:02X}.0"), length)
    }

    4010 fn cuDeviceGetByPCIBusId(device: Out<i32>, name: Text) {
        let name = name.get()?;
        let mut parts = name.split([':', '.']).map(|part| u32::from_str_radix(part, 16));
        let mut part = || parts.next().and_then(|part| part.ok()).ok_or(Error::INVALID_VALUE);
        // The domain may be left out.
        let domain = if name.matches(':').count() == 2 { part()? } else { 0 };
        let wanted = (domain, part()?, part()?);
        let devices = &Driver::get()?.devices;
        let found = devices.iter().find(|device| {
            let (domain, bus, slot) = device.properties().pci;
            (domain, bus.into(), slot.into()) == wanted
        });
        device.set(found.ok_or(Error::INVALID_DEVICE)?.ordinal)
    }

    11040 fn cuDeviceGetExecAffinitySupport(supported: Out<i32>, _kind: u32, device: i32) {
        properties(device)?;
        supported.set(0)
    }

    4000 fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) {
        properties(device)?;
        properties(peer)?;
        can.set(0)
    }

    8000 fn cuDeviceGetP2PAttribute(value: Out<i32>, _attribute: u32, from: i32, to: i32) {
        properties(from)?;
        properties(to)?;
        if from == to {
            return Err(Error::INVALID_DEVICE);
        }
        value.set(0)
    }

    4000 fn cuProfilerStart() {
        Ok(())
    }

    4000 fn cuProfilerStop() {
        Ok(())
    }
}
