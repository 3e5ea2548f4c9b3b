//! Graphs of kernels, copies, fills and calls.

use std::sync::Arc;

use super::copy::Copy3d;
use crate::driver::Driver;
use crate::ffi::{Address, HostFunction, In, Out, driver_api};
use crate::graph::{Action, Graph};
use crate::launch::Launch;
use crate::registry::Handle;
use crate::transfer::{Fill, Side};
use crate::transport::Grid;
use crate::{Error, Result};

/// `CUDA_KERNEL_NODE_PARAMS_v1`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KernelNode {
    function: Handle,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    params: In<Address>,
    extra: In<u64>,
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KernelNodeV2 {
    node: KernelNode,
    kernel: Handle,
    context: Handle,
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FillNode {
    to: u64,
    pitch: usize,
    value: u32,
    element: u32,
    width: usize,
    height: usize,
}

/// `CUDA_HOST_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CallNode {
    function: HostFunction,
    data: Address,
}

impl KernelNode {
    fn action(&self, driver: &Driver) -> Result<Action> {
        let grid = Grid {
            grid: self.grid,
            block: self.block,
            shared_bytes: self.shared_bytes,
        };
        let function = driver.function(self.function)?;
        Ok(Action::Launch(Launch::new(
            function,
            grid,
            self.params,
            self.extra,
        )?))
    }
}

impl KernelNodeV2 {
    fn action(&self, driver: &Driver) -> Result<Action> {
        let mut node = self.node;
        if node.function == Handle::NULL {
            node.function = self.kernel;
        }
        node.action(driver)
    }
}

impl FillNode {
    fn action(&self, driver: &Driver) -> Result<Action> {
        let to = Side {
            address: self.to,
            pitch: self.pitch as u64,
            layer: 0,
        };
        let (columns, rows) = (self.width as u64, self.height as u64);
        let fill = Fill::new(driver, to, self.value, self.element.into(), columns, rows)?;
        Ok(Action::Fill(fill))
    }
}

/// Adds a node to a graph, behind the nodes of an array.
fn add(
    out: Out<Handle>,
    graph: Handle,
    after: In<Handle>,
    count: usize,
    action: Action,
) -> Result<()> {
    let driver = Driver::get()?;
    let nodes = driver.graphs.get(graph)?;
    out.set(nodes.add(driver, &after.array(count)?, action)?)
}

/// `CUgraphInstantiate_flags`. A graph has no memory of its own here, and nothing to upload; there is one priority.
mod flag {
    pub const AUTO_FREE_ON_LAUNCH: u64 = 1;
    pub const DEVICE_LAUNCH: u64 = 4;
    pub const ALL: u64 = 0xf;
}

fn instantiate(out: Out<Handle>, graph: Handle, flags: u64) -> Result<()> {
    const CONTRADICTION: u64 = flag::AUTO_FREE_ON_LAUNCH | flag::DEVICE_LAUNCH;
    if flags & !flag::ALL != 0 || flags & CONTRADICTION == CONTRADICTION {
        return Err(Error::INVALID_VALUE);
    }
    if flags & flag::DEVICE_LAUNCH != 0 {
        return Err(Error::NOT_SUPPORTED);
    }
    let driver = Driver::get()?;
    let executable = driver.graphs.get(graph)?.instantiate(driver)?;
    out.set(driver.executables.add(Arc::new(executable)))
}

fn set(executable: Handle, node: Handle, action: Action) -> Result<()> {
    Driver::get()?
        .executables
        .get(executable)?
        .set(node, action)
}

driver_api! {
    10000 fn cuGraphCreate(graph: Out<Handle>, flags: u32) {
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        graph.set(Driver::get()?.graphs.add(Arc::new(Graph::default())))
    }

    10000 fn cuGraphDestroy(graph: Handle) {
        let driver = Driver::get()?;
        driver.graphs.remove(graph)?.destroy(driver);
        Ok(())
    }

    10000 fn cuGraphAddKernelNode(
        node: Out<Handle>,
        graph: Handle,
        after: In<Handle>,
        count: usize,
        params: In<KernelNode>,
    ) {
        add(node, graph, after, count, params.get()?.action(Driver::get()?)?)
    }

    12000 fn cuGraphAddKernelNode_v2(
        node: Out<Handle>,
        graph: Handle,
        after: In<Handle>,
        count: usize,
        params: In<KernelNodeV2>,
    ) {
        add(node, graph, after, count, params.get()?.action(Driver::get()?)?)
    }

    10000 fn cuGraphAddMemcpyNode(
        node: Out<Handle>,
        graph: Handle,
        after: In<Handle>,
        count: usize,
        params: In<Copy3d>,
        _context: Handle,
    ) {
        add(node, graph, after, count, Action::Copy(params.get()?.check(Driver::get()?)?))
    }

    10000 fn cuGraphAddMemsetNode(
        node: Out<Handle>,
        graph: Handle,
        after: In<Handle>,
        count: usize,
        params: In<FillNode>,
        _context: Handle,
    ) {
        add(node, graph, after, count, params.get()?.action(Driver::get()?)?)
    }

    10000 fn cuGraphAddHostNode(
        node: Out<Handle>,
        graph: Handle,
        after: In<Handle>,
        count: usize,
        params: In<CallNode>,
    ) {
        let CallNode { function, data } = params.get()?;
        function.check()?;
        add(node, graph, after, count, Action::Call(function, data))
    }

    10000 fn cuGraphAddEmptyNode(node: Out<Handle>, graph: Handle, after: In<Handle>, count: usize) {
        add(node, graph, after, count, Action::Empty)
    }

    10000 fn cuGraphKernelNodeSetParams(node: Handle, params: In<KernelNode>) {
        let driver = Driver::get()?;
        driver.nodes.get(node)?.set(params.get()?.action(driver)?)
    }

    12000 fn cuGraphKernelNodeSetParams_v2(node: Handle, params: In<KernelNodeV2>) {
        let driver = Driver::get()?;
        driver.nodes.get(node)?.set(params.get()?.action(driver)?)
    }

    10000 fn cuGraphMemcpyNodeSetParams(node: Handle, params: In<Copy3d>) {
        let driver = Driver::get()?;
        driver.nodes.get(node)?.set(Action::Copy(params.get()?.check(driver)?))
    }

    // A list of nodes, or with a null array only their number.
    10000 fn cuGraphGetNodes(graph: Handle, nodes: Out<Handle>, count: Address) {
        let all = Driver::get()?.graphs.get(graph)?.nodes();
        if count.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        let room = count.value::<usize>(0);
        let mut written = 0;
        for node in all.iter().take(room) {
            if nodes.set_at(written, *node).is_err() {
                break;
            }
            written += 1;
        }
        count.out().set(if written == 0 { all.len() } else { written })
    }

    10000 fn cuGraphInstantiate(
        executable: Out<Handle>,
        graph: Handle,
        _error_node: Out<Handle>,
        _log: Address,
        _log_bytes: usize,
    ) {
        instantiate(executable, graph, 0)
    }

    11000 fn cuGraphInstantiate_v2(
        executable: Out<Handle>,
        graph: Handle,
        _error_node: Out<Handle>,
        _log: Address,
        _log_bytes: usize,
    ) {
        instantiate(executable, graph, 0)
    }

    11040 fn cuGraphInstantiateWithFlags(executable: Out<Handle>, graph: Handle, flags: u64) {
        instantiate(executable, graph, flags)
    }

    12000 fn cuGraphInstantiateWithParams(
        executable: Out<Handle>,
        graph: Handle,
        params: Address,
    ) | 12000 cuGraphInstantiateWithParams_ptsz {
        if params.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        let outcome = instantiate(executable, graph, params.value(0));
        // `CUDA_GRAPH_INSTANTIATE_PARAMS`: behind the flags the stream for an upload, then a node that is at fault, and the
        // outcome, 0 or 1.
        Address(params.0 + 16).out().set(Handle::NULL)?;
        Address(params.0 + 24).out().set(u32::from(outcome.is_err()))?;
        outcome
    }

    10010 fn cuGraphExecKernelNodeSetParams(executable: Handle, node: Handle, params: In<KernelNode>) {
        set(executable, node, params.get()?.action(Driver::get()?)?)
    }

    12000 fn cuGraphExecKernelNodeSetParams_v2(executable: Handle, node: Handle, params: In<KernelNodeV2>) {
        set(executable, node, params.get()?.action(Driver::get()?)?)
    }

    10020 fn cuGraphExecMemcpyNodeSetParams(executable: Handle, node: Handle, params: In<Copy3d>, _context: Handle) {
        set(executable, node, Action::Copy(params.get()?.check(Driver::get()?)?))
    }

    10020 fn cuGraphExecMemsetNodeSetParams(executable: Handle, node: Handle, params: In<FillNode>, _context: Handle) {
        set(executable, node, params.get()?.action(Driver::get()?)?)
    }

    10000 fn cuGraphLaunch(executable: Handle, stream: Handle) | 10000 cuGraphLaunch_ptsz {
        let driver = Driver::get()?;
        let stream = driver.stream(stream)?;
        stream.perform(driver.executables.get(executable)?.work())
    }

    // Nothing of a graph goes to the device before it is launched.
    11010 fn cuGraphUpload(executable: Handle, stream: Handle) | 11010 cuGraphUpload_ptsz {
        let driver = Driver::get()?;
        driver.stream(stream)?;
        driver.executables.get(executable).map(|_| ())
    }

    10000 fn cuGraphExecDestroy(executable: Handle) {
        Driver::get()?.executables.remove(executable).map(|_| ())
    }
}
