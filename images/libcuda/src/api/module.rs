//! Modules, kernels and the linker.

use std::sync::{Arc, Mutex, PoisonError};

use crate::context;
use crate::driver::Driver;
use crate::ffi::{Address, In, Out, StaticText, Text, driver_api};
use crate::image;
use crate::jit::{Link, Options};
use crate::module::Module;
use crate::registry::Handle;
use crate::{Error, Result};

fn load(out: Out<Handle>, ptx: &str, options: Options) -> Result<()> {
    let driver = Driver::get()?;
    let module = Module::load(&context::current()?, ptx, options)?;
    out.set(driver.modules.add(Arc::new(module)))
}

/// The content of a file that holds an image.
pub fn read_file(name: Text) -> Result<Vec<u8>> {
    std::fs::read(name.get()?).map_err(|_| Error::FILE_NOT_FOUND)
}

fn with_link<T>(state: Handle, work: impl FnOnce(&mut Link) -> Result<T>) -> Result<T> {
    let link = Driver::get()?.links.get(state)?;
    let mut link = link.lock().unwrap_or_else(PoisonError::into_inner);
    work(&mut link)
}

driver_api! {
    2000 fn cuModuleLoad(module: Out<Handle>, name: Text) {
        context::current()?;
        load(module, &image::ptx_of(&read_file(name)?)?, Options::default())
    }

    2000 fn cuModuleLoadData(module: Out<Handle>, image: Address) {
        context::current()?;
        load(module, &image::ptx_at(image)?, Options::default())
    }

    2010 fn cuModuleLoadDataEx(module: Out<Handle>, image: Address, count: u32, options: In<u32>, values: In<u64>) {
        context::current()?;
        let options = Options::read(count, options, values)?;
        load(module, &image::ptx_at(image)?, options)
    }

    2000 fn cuModuleLoadFatBinary(module: Out<Handle>, image: Address) {
        context::current()?;
        load(module, &image::ptx_at(image)?, Options::default())
    }

    2000 fn cuModuleUnload(module: Handle) {
        let driver = Driver::get()?;
        driver.modules.remove(module)?.unload(driver)
    }

    11070 fn cuModuleGetLoadingMode(mode: Out<u32>) {
        // CU_MODULE_EAGER_LOADING
        mode.set(1)
    }

    2000 fn cuModuleGetFunction(function: Out<Handle>, module: Handle, name: Text) {
        let driver = Driver::get()?;
        context::current()?;
        let module = driver.modules.get(module)?;
        function.set(module.function(driver, &name.get()?)?)
    }

    12040 fn cuModuleGetFunctionCount(count: Out<u32>, module: Handle) {
        count.set(Driver::get()?.modules.get(module)?.kernels().len() as u32)
    }

    12040 fn cuModuleEnumerateFunctions(functions: Out<Handle>, count: u32, module: Handle) {
        let driver = Driver::get()?;
        let module = driver.modules.get(module)?;
        for (index, name) in module.kernels().iter().take(count as usize).enumerate() {
            functions.set_at(index, module.function(driver, name)?)?;
        }
        Ok(())
    }

    3020 fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, module: Handle, name: Text) {
        let driver = Driver::get()?;
        context::current()?;
        let (base, length) = driver.modules.get(module)?.variable(driver, &name.get()?)?;
        address.set_if_wanted(base);
        bytes.set_if_wanted(length as usize);
        Ok(())
    }

    5050 fn cuLinkCreate(count: u32, options: In<u32>, values: In<u64>, state: Out<Handle>) | 6050 cuLinkCreate_v2 {
        context::current()?;
        let link = Link::new(Options::read(count, options, values)?);
        state.set(Driver::get()?.links.add(Arc::new(Mutex::new(link))))
    }

    5050 fn cuLinkAddData(
        state: Handle,
        kind: u32,
        data: Address,
        bytes: usize,
        _name: Address,
        _count: u32,
        _options: In<u32>,
        _values: In<u64>,
    ) | 6050 cuLinkAddData_v2 {
        if data.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        with_link(state, |link| link.add(kind, data.bytes(bytes)))
    }

    5050 fn cuLinkAddFile(
        state: Handle,
        kind: u32,
        path: Text,
        _count: u32,
        _options: In<u32>,
        _values: In<u64>,
    ) | 6050 cuLinkAddFile_v2 {
        let data = read_file(path)?;
        with_link(state, |link| link.add(kind, &data))
    }

    // The image lives as long as the linker.
    5050 fn cuLinkComplete(state: Handle, image: Out<Address>, bytes: Out<usize>) {
        with_link(state, |link| {
            let output = link.complete()?;
            image.set(Address(output.as_ptr() as u64))?;
            bytes.set_if_wanted(output.len());
            Ok(())
        })
    }

    5050 fn cuLinkDestroy(state: Handle) {
        Driver::get()?.links.remove(state).map(|_| ())
    }

    2020 fn cuFuncGetAttribute(value: Out<i32>, attribute: u32, function: Handle) {
        value.set(Driver::get()?.function(function)?.attribute(attribute)?)
    }

    9000 fn cuFuncSetAttribute(function: Handle, attribute: u32, value: i32) {
        Driver::get()?.function(function)?.set_attribute(attribute, value)
    }

    3000 fn cuFuncSetCacheConfig(function: Handle, _config: u32) {
        Driver::get()?.function(function).map(|_| ())
    }

    4020 fn cuFuncSetSharedMemConfig(function: Handle, _config: u32) {
        Driver::get()?.function(function).map(|_| ())
    }

    11000 fn cuFuncGetModule(module: Out<Handle>, function: Handle) {
        let driver = Driver::get()?;
        let function = driver.function(function)?;
        let same = |module: &Module| std::ptr::eq(module, &*function.module);
        module.set(driver.modules.position(same).ok_or(Error::INVALID_HANDLE)?)
    }

    12030 fn cuFuncGetName(name: Out<Address>, function: Handle) {
        let function = Driver::get()?.function(function)?;
        name.set(Address(function.c_name().as_ptr() as u64))
    }

    12040 fn cuFuncGetParamInfo(function: Handle, index: usize, offset: Out<usize>, bytes: Out<usize>) {
        let (at, length) = Driver::get()?.function(function)?.parameter(index)?;
        offset.set(at as usize)?;
        bytes.set_if_wanted(length as usize);
        Ok(())
    }

    13020 fn cuFuncGetParamCount(function: Handle, count: Out<usize>) {
        count.set(Driver::get()?.function(function)?.parameter_count())
    }

    12040 fn cuFuncIsLoaded(state: Out<u32>, function: Handle) {
        Driver::get()?.function(function)?;
        state.set(1)
    }

    12040 fn cuFuncLoad(function: Handle) {
        Driver::get()?.function(function).map(|_| ())
    }

    // There are no textures and no surfaces, so no module has one of that name.
    2000 fn cuModuleGetTexRef(reference: Out<StaticText>, module: Handle, _name: Text) {
        Driver::get()?.modules.get(module)?;
        reference.set(StaticText::NULL)?;
        Err(Error::NOT_FOUND)
    }

    3000 fn cuModuleGetSurfRef(reference: Out<StaticText>, module: Handle, _name: Text) {
        Driver::get()?.modules.get(module)?;
        reference.set(StaticText::NULL)?;
        Err(Error::NOT_FOUND)
    }
}
