//! Functions of CUDA's interface up to 13.4 that this device does not do: arrays and textures, graphics, virtual memory
//! management, inter-process handles, the oldest forms, whose addresses have 32 bits, and all that came after 12.9.

use crate::Error;
use crate::ffi::Entry;

/// Names by the version of CUDA that they came with. The arguments do not matter: the caller cleans them up.
macro_rules! unsupported {
    ($($since:literal: $($name:ident)*;)*) => {
        $($(
            #[allow(unsafe_code, non_snake_case)]
            // SAFETY: nothing else in a program has one of CUDA's names.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name() -> u32 {
                crate::ffi::call(stringify!($name), || "...".into(), || Err(Error::NOT_SUPPORTED))
            }
        )*)*

        pub const ENTRIES: &[Entry] = &[
            $($(Entry { name: stringify!($name), since: $since, address: $name as *const _ },)*)*
        ];
    };
}

unsupported! {
    2000:
        cuArray3DCreate cuArray3DGetDescriptor cuArrayCreate cuArrayDestroy cuArrayGetDescriptor
        cuDeviceTotalMem cuFuncSetBlockShape cuFuncSetSharedSize cuLaunch cuLaunchGrid cuLaunchGridAsync
        cuMemAlloc cuMemAllocHost cuMemAllocPitch cuMemFree cuMemGetAddressRange cuMemGetInfo cuMemcpy2D
        cuMemcpy2DAsync cuMemcpy2DUnaligned cuMemcpy3D cuMemcpy3DAsync cuMemcpyAtoA cuMemcpyAtoD cuMemcpyAtoH
        cuMemcpyAtoHAsync cuMemcpyDtoA cuMemcpyDtoD cuMemcpyDtoH cuMemcpyDtoHAsync cuMemcpyHtoA
        cuMemcpyHtoAAsync cuMemcpyHtoD cuMemcpyHtoDAsync cuMemsetD16 cuMemsetD2D16 cuMemsetD2D32 cuMemsetD2D8
        cuMemsetD32 cuMemsetD8 cuModuleGetGlobal cuParamSetSize cuParamSetTexRef cuParamSetf cuParamSeti
        cuParamSetv cuTexRefCreate cuTexRefDestroy cuTexRefGetAddress cuTexRefGetAddressMode cuTexRefGetArray
        cuTexRefGetFilterMode cuTexRefGetFlags cuTexRefGetFormat cuTexRefSetAddress cuTexRefSetAddressMode
        cuTexRefSetArray cuTexRefSetFilterMode cuTexRefSetFlags cuTexRefSetFormat;
    2020:
        cuMemHostGetDevicePointer cuTexRefSetAddress2D;
    3000:
        cuGraphicsMapResources cuGraphicsResourceGetMappedPointer cuGraphicsResourceSetMapFlags
        cuGraphicsSubResourceGetMappedArray cuGraphicsUnmapResources cuGraphicsUnregisterResource
        cuMemcpyDtoDAsync cuSurfRefGetArray cuSurfRefSetArray;
    3020:
        cuArray3DCreate_v2 cuArray3DGetDescriptor_v2 cuArrayCreate_v2 cuArrayGetDescriptor_v2
        cuGraphicsResourceGetMappedPointer_v2 cuMemcpyAtoA_v2 cuMemcpyAtoD_v2 cuMemcpyAtoHAsync_v2
        cuMemcpyAtoH_v2 cuMemcpyDtoA_v2 cuMemcpyHtoAAsync_v2 cuMemcpyHtoA_v2 cuTexRefGetAddress_v2
        cuTexRefSetAddress2D_v2 cuTexRefSetAddress_v2;
    4000:
        cuMemHostRegister cuMemHostUnregister cuMemcpy3DPeer cuMemcpy3DPeerAsync cuProfilerInitialize;
    4010:
        cuIpcCloseMemHandle cuIpcGetEventHandle cuIpcGetMemHandle cuIpcOpenEventHandle cuIpcOpenMemHandle
        cuTexRefSetAddress2D_v3;
    5000:
        cuGraphicsResourceGetMappedMipmappedArray cuMipmappedArrayCreate cuMipmappedArrayDestroy
        cuMipmappedArrayGetLevel cuSurfObjectCreate cuSurfObjectDestroy cuSurfObjectGetResourceDesc
        cuTexObjectCreate cuTexObjectDestroy cuTexObjectGetResourceDesc cuTexObjectGetResourceViewDesc
        cuTexObjectGetTextureDesc cuTexRefGetMaxAnisotropy cuTexRefGetMipmapFilterMode
        cuTexRefGetMipmapLevelBias cuTexRefGetMipmapLevelClamp cuTexRefGetMipmappedArray
        cuTexRefSetMaxAnisotropy cuTexRefSetMipmapFilterMode cuTexRefSetMipmapLevelBias
        cuTexRefSetMipmapLevelClamp cuTexRefSetMipmappedArray;
    6050:
        cuGraphicsResourceSetMapFlags_v2 cuMemHostRegister_v2;
    7000:
        cuGraphicsMapResources_ptsz cuGraphicsUnmapResources_ptsz cuMemcpy3DPeerAsync_ptsz cuMemcpy3DPeer_ptds
        cuMemcpyAtoA_v2_ptds cuMemcpyAtoD_v2_ptds cuMemcpyAtoHAsync_v2_ptsz cuMemcpyAtoH_v2_ptds
        cuMemcpyDtoA_v2_ptds cuMemcpyHtoAAsync_v2_ptsz cuMemcpyHtoA_v2_ptds;
    8000:
        cuMemRangeGetAttribute cuMemRangeGetAttributes cuStreamBatchMemOp cuStreamBatchMemOp_ptsz
        cuStreamWaitValue32 cuStreamWaitValue32_ptsz cuStreamWriteValue32 cuStreamWriteValue32_ptsz
        cuTexRefGetBorderColor cuTexRefSetBorderColor;
    9000:
        cuLaunchCooperativeKernel cuLaunchCooperativeKernelMultiDevice cuLaunchCooperativeKernel_ptsz
        cuStreamWaitValue64 cuStreamWaitValue64_ptsz cuStreamWriteValue64 cuStreamWriteValue64_ptsz;
    10000:
        cuDestroyExternalMemory cuDestroyExternalSemaphore cuDeviceGetLuid cuExternalMemoryGetMappedBuffer
        cuExternalMemoryGetMappedMipmappedArray cuGraphAddChildGraphNode cuGraphAddDependencies
        cuGraphChildGraphNodeGetGraph cuGraphClone cuGraphDestroyNode cuGraphGetEdges cuGraphGetRootNodes
        cuGraphHostNodeGetParams cuGraphHostNodeSetParams cuGraphKernelNodeGetParams cuGraphMemcpyNodeGetParams
        cuGraphMemsetNodeGetParams cuGraphMemsetNodeSetParams cuGraphNodeFindInClone cuGraphNodeGetDependencies
        cuGraphNodeGetDependentNodes cuGraphNodeGetType cuGraphRemoveDependencies cuImportExternalMemory
        cuImportExternalSemaphore cuSignalExternalSemaphoresAsync cuSignalExternalSemaphoresAsync_ptsz
        cuWaitExternalSemaphoresAsync cuWaitExternalSemaphoresAsync_ptsz;
    10020:
        cuDeviceGetNvSciSyncAttributes cuGraphExecHostNodeSetParams cuGraphExecUpdate cuMemAddressFree
        cuMemAddressReserve cuMemCreate cuMemExportToShareableHandle cuMemGetAllocationGranularity
        cuMemGetAllocationPropertiesFromHandle cuMemImportFromShareableHandle cuMemMap cuMemRelease
        cuMemSetAccess cuMemUnmap;
    11000:
        cuGraphKernelNodeCopyAttributes cuGraphKernelNodeGetAttribute cuGraphKernelNodeSetAttribute
        cuIpcOpenMemHandle_v2 cuMemRetainAllocationHandle cuStreamCopyAttributes cuStreamCopyAttributes_ptsz
        cuStreamGetAttribute cuStreamGetAttribute_ptsz cuStreamSetAttribute cuStreamSetAttribute_ptsz;
    11010:
        cuArrayGetSparseProperties cuDeviceGetTexture1DLinearMaxWidth cuGraphAddEventRecordNode cuGraphAddEventWaitNode
        cuGraphEventRecordNodeGetEvent cuGraphEventRecordNodeSetEvent cuGraphEventWaitNodeGetEvent
        cuGraphEventWaitNodeSetEvent cuGraphExecChildGraphNodeSetParams cuGraphExecEventRecordNodeSetEvent
        cuGraphExecEventWaitNodeSetEvent cuMemMapArrayAsync cuMemMapArrayAsync_ptsz
        cuMipmappedArrayGetSparseProperties;
    11020:
        cuArrayGetPlane cuGraphAddExternalSemaphoresSignalNode cuGraphAddExternalSemaphoresWaitNode
        cuGraphExecExternalSemaphoresSignalNodeSetParams cuGraphExecExternalSemaphoresWaitNodeSetParams
        cuGraphExternalSemaphoresSignalNodeGetParams cuGraphExternalSemaphoresSignalNodeSetParams
        cuGraphExternalSemaphoresWaitNodeGetParams cuGraphExternalSemaphoresWaitNodeSetParams
        cuMemPoolExportPointer cuMemPoolExportToShareableHandle cuMemPoolImportFromShareableHandle
        cuMemPoolImportPointer;
    11030:
        cuFlushGPUDirectRDMAWrites cuGraphDebugDotPrint cuGraphReleaseUserObject cuGraphRetainUserObject
        cuStreamUpdateCaptureDependencies cuStreamUpdateCaptureDependencies_ptsz cuUserObjectCreate
        cuUserObjectRelease cuUserObjectRetain;
    11040:
        cuCtxGetExecAffinity cuDeviceGetGraphMemAttribute cuDeviceGraphMemTrim cuDeviceSetGraphMemAttribute
        cuGraphAddMemAllocNode cuGraphAddMemFreeNode cuGraphMemAllocNodeGetParams cuGraphMemFreeNodeGetParams;
    11060:
        cuArrayGetMemoryRequirements cuGraphNodeGetEnabled cuGraphNodeSetEnabled
        cuMipmappedArrayGetMemoryRequirements;
    11070:
        cuGraphAddBatchMemOpNode cuGraphBatchMemOpNodeGetParams cuGraphBatchMemOpNodeSetParams
        cuGraphExecBatchMemOpNodeSetParams cuMemGetHandleForAddressRange cuOccupancyMaxActiveClusters
        cuOccupancyMaxPotentialClusterSize cuStreamBatchMemOp_v2 cuStreamBatchMemOp_v2_ptsz
        cuStreamWaitValue32_v2 cuStreamWaitValue32_v2_ptsz cuStreamWaitValue64_v2 cuStreamWaitValue64_v2_ptsz
        cuStreamWriteValue32_v2 cuStreamWriteValue32_v2_ptsz cuStreamWriteValue64_v2
        cuStreamWriteValue64_v2_ptsz;
    12000:
        cuGetProcAddress_v2_ptsz cuGraphExecGetFlags cuGraphExecUpdate_v2 cuGraphKernelNodeGetParams_v2
        cuLibraryGetManaged cuLibraryGetUnifiedFunction cuTensorMapEncodeIm2col cuTensorMapEncodeTiled
        cuTensorMapReplaceAddress;
    12010:
        cuCoredumpGetAttribute cuCoredumpGetAttributeGlobal cuCoredumpSetAttribute cuCoredumpSetAttributeGlobal
        cuMulticastAddDevice cuMulticastBindAddr cuMulticastBindMem cuMulticastCreate cuMulticastGetGranularity
        cuMulticastUnbind;
    12020:
        cuGraphAddNode cuGraphExecNodeSetParams cuGraphNodeSetParams;
    12030:
        cuGraphAddDependencies_v2 cuGraphAddNode_v2 cuGraphConditionalHandleCreate cuGraphGetEdges_v2
        cuGraphNodeGetDependencies_v2 cuGraphNodeGetDependentNodes_v2 cuGraphRemoveDependencies_v2
        cuStreamUpdateCaptureDependencies_v2 cuStreamUpdateCaptureDependencies_v2_ptsz;
    12040:
        cuCtxFromGreenCtx cuCtxGetDevResource cuDevResourceGenerateDesc cuDevSmResourceSplitByCount
        cuDeviceGetDevResource cuDeviceRegisterAsyncNotification cuDeviceUnregisterAsyncNotification
        cuGreenCtxCreate cuGreenCtxDestroy cuGreenCtxGetDevResource cuGreenCtxRecordEvent cuGreenCtxWaitEvent
        cuStreamGetGreenCtx;
    12050:
        cuCtxRecordEvent cuCtxWaitEvent cuGreenCtxStreamCreate;
    12060:
        cuMemBatchDecompressAsync cuMemBatchDecompressAsync_ptsz;
    12080:
        cuCheckpointProcessCheckpoint cuCheckpointProcessGetRestoreThreadId cuCheckpointProcessGetState
        cuCheckpointProcessLock cuCheckpointProcessRestore cuCheckpointProcessUnlock cuMemcpy3DBatchAsync
        cuMemcpy3DBatchAsync_ptsz cuMemcpyBatchAsync cuMemcpyBatchAsync_ptsz cuTensorMapEncodeIm2colWide;
    12090:
        cuLogsCurrent cuLogsDumpToFile cuLogsDumpToMemory cuLogsRegisterCallback cuLogsUnregisterCallback;
    13000:
        cuDeviceGetHostAtomicCapabilities cuDeviceGetP2PAtomicCapabilities cuGreenCtxGetId
        cuMemDiscardAndPrefetchBatchAsync cuMemDiscardBatchAsync cuMemGetDefaultMemPool cuMemGetMemPool
        cuMemPrefetchBatchAsync cuMemSetMemPool cuMemcpy3DBatchAsync_v2 cuMemcpyBatchAsync_v2;
    13010:
        cuDevSmResourceSplit cuGraphExecGetId cuGraphGetId cuGraphNodeGetContainingGraph cuGraphNodeGetLocalId
        cuGraphNodeGetToolsId cuMulticastBindAddr_v2 cuMulticastBindMem_v2 cuStreamGetDevResource;
    13020:
        cuCoredumpDeregisterCompleteCallback cuCoredumpDeregisterStartCallback
        cuCoredumpRegisterCompleteCallback cuCoredumpRegisterStartCallback
        cuGraphNodeGetParams cuMemcpy3DWithAttributesAsync
        cuMemcpyWithAttributesAsync cuStreamBeginCaptureToCig cuStreamEndCaptureToCig;
    13030:
        cuLogicalEndpointAddDevice cuLogicalEndpointBindAddr cuLogicalEndpointBindMem cuLogicalEndpointCreate
        cuLogicalEndpointDestroy cuLogicalEndpointExport cuLogicalEndpointGetLimits cuLogicalEndpointIdRelease
        cuLogicalEndpointIdReserve cuLogicalEndpointImport cuLogicalEndpointQuery cuLogicalEndpointUnbind
        cuStreamBeginRecaptureToGraph;
    13040:
        cuDeviceGetCliqueCount cuDeviceGetCliqueInfo cuDeviceGetFabricClusterUuid cuGraphAddNode_v3
        cuGraphNodeSetParams_v2 cuMemGetLocationInfo;
}
