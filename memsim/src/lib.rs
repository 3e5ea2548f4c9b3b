//! What a CXL topology costs: topology, latency law, epoch kernel, access sources.

mod attributes;
pub mod cache;
pub mod curve;
pub mod error;
pub mod fit;
mod host;
pub mod kernel;
pub mod law;
pub mod machine;
pub mod newick;
pub mod placement;
pub mod profile;
pub mod revisits;
pub mod topology;
pub mod trace;

pub use error::Error;
