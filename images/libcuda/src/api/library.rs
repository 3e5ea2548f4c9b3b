//! Libraries: modules of every context.

use std::sync::Arc;

use super::module::read_file;
use crate::driver::Driver;
use crate::ffi::{Address, In, Out, Text, driver_api};
use crate::image;
use crate::jit::Options;
use crate::module::Library;
use crate::registry::Handle;
use crate::{Error, Result};

/// Keeps a library; compiled now, so that mistakes are told now, if there is a context to do it in.
fn load(out: Out<Handle>, ptx: String, options: Options) -> Result<()> {
    let driver = Driver::get()?;
    let library = Library::new(ptx);
    match library.module(driver, options) {
        Ok(_) | Err(Error::INVALID_CONTEXT) => {}
        Err(error) => return Err(error),
    }
    let handle = library.handle;
    driver.libraries.keep(handle, Arc::new(library));
    out.set(handle)
}

driver_api! {
    12000 fn cuLibraryLoadData(
        library: Out<Handle>,
        image: Address,
        options: In<u32>,
        values: In<u64>,
        count: u32,
        _library_options: In<u32>,
        _library_values: In<u64>,
        _library_count: u32,
    ) {
        let options = Options::read(count, options, values)?;
        load(library, image::ptx_at(image)?, options)
    }

    12000 fn cuLibraryLoadFromFile(
        library: Out<Handle>,
        name: Text,
        options: In<u32>,
        values: In<u64>,
        count: u32,
        _library_options: In<u32>,
        _library_values: In<u64>,
        _library_count: u32,
    ) {
        let options = Options::read(count, options, values)?;
        load(library, image::ptx_of(&read_file(name)?)?, options)
    }

    12000 fn cuLibraryUnload(library: Handle) {
        let driver = Driver::get()?;
        driver.libraries.remove(library)?.unload(driver)
    }

    12000 fn cuLibraryGetKernel(kernel: Out<Handle>, library: Handle, name: Text) {
        let driver = Driver::get()?;
        kernel.set(driver.libraries.get(library)?.kernel(driver, &name.get()?)?)
    }

    12040 fn cuLibraryGetKernelCount(count: Out<u32>, library: Handle) {
        let driver = Driver::get()?;
        let (_, module) = driver.libraries.get(library)?.module(driver, Options::default())?;
        count.set(module.kernels().len() as u32)
    }

    12040 fn cuLibraryEnumerateKernels(kernels: Out<Handle>, count: u32, library: Handle) {
        let driver = Driver::get()?;
        let library = driver.libraries.get(library)?;
        let (_, module) = library.module(driver, Options::default())?;
        for (index, name) in module.kernels().iter().take(count as usize).enumerate() {
            kernels.set_at(index, library.kernel(driver, name)?)?;
        }
        Ok(())
    }

    12000 fn cuLibraryGetModule(module: Out<Handle>, library: Handle) {
        let driver = Driver::get()?;
        let (handle, _) = driver.libraries.get(library)?.module(driver, Options::default())?;
        module.set(handle)
    }

    12000 fn cuLibraryGetGlobal(address: Out<u64>, bytes: Out<usize>, library: Handle, name: Text) {
        let driver = Driver::get()?;
        let (_, module) = driver.libraries.get(library)?.module(driver, Options::default())?;
        let (base, length) = module.variable(driver, &name.get()?)?;
        address.set_if_wanted(base);
        bytes.set_if_wanted(length as usize);
        Ok(())
    }

    12000 fn cuKernelGetFunction(function: Out<Handle>, kernel: Handle) {
        let driver = Driver::get()?;
        function.set(driver.kernels.get(kernel)?.function(driver)?)
    }

    12050 fn cuKernelGetLibrary(library: Out<Handle>, kernel: Handle) {
        library.set(Driver::get()?.kernels.get(kernel)?.library.handle)
    }

    12030 fn cuKernelGetName(name: Out<Address>, kernel: Handle) {
        let function = Driver::get()?.function(kernel)?;
        name.set(Address(function.c_name().as_ptr() as u64))
    }

    12040 fn cuKernelGetParamInfo(kernel: Handle, index: usize, offset: Out<usize>, bytes: Out<usize>) {
        let (at, length) = Driver::get()?.function(kernel)?.parameter(index)?;
        offset.set(at as usize)?;
        bytes.set_if_wanted(length as usize);
        Ok(())
    }

    13020 fn cuKernelGetParamCount(kernel: Handle, count: Out<usize>) {
        count.set(Driver::get()?.function(kernel)?.parameter_count())
    }

    12000 fn cuKernelGetAttribute(value: Out<i32>, attribute: u32, kernel: Handle, device: i32) {
        let driver = Driver::get()?;
        driver.device(device)?;
        value.set(driver.function(kernel)?.attribute(attribute)?)
    }

    12000 fn cuKernelSetAttribute(attribute: u32, value: i32, kernel: Handle, device: i32) {
        let driver = Driver::get()?;
        driver.device(device)?;
        driver.function(kernel)?.set_attribute(attribute, value)
    }

    12000 fn cuKernelSetCacheConfig(kernel: Handle, _config: u32, device: i32) {
        let driver = Driver::get()?;
        driver.device(device)?;
        driver.kernels.get(kernel).map(|_| ())
    }
}
