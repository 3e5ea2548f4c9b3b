//! `cuGetProcAddress`: a name without its suffix, and a version of CUDA, mean one function.

use crate::api;
use crate::ffi::Entry;

/// What the search came to, with `CUdriverProcAddressQueryResult`'s numbers.
#[derive(Clone, Copy)]
pub enum Found {
    Function(&'static Entry),
    Nothing,
    /// The function is newer than the version that was asked for.
    TooNew,
}

impl Found {
    pub fn status(self) -> u32 {
        match self {
            Self::Function(_) => 0,
            Self::Nothing => 1,
            Self::TooNew => 2,
        }
    }
}

/// Names that changed by more than a suffix.
const RENAMED: [(&str, &str); 1] = [("cuGraphInstantiate", "cuGraphInstantiateWithFlags")];

/// The function that `symbol` means to programs of CUDA `version`; with `per_thread`, its form for the default stream of
/// each thread where it has one.
pub fn find(symbol: &str, version: i32, per_thread: bool) -> Found {
    let newest = |per_thread: bool| {
        let variants = api::entries().filter(|entry| is_variant(symbol, entry.name, per_thread));
        let mut found = Found::Nothing;
        for entry in variants {
            found = match found {
                _ if entry.since > version => match found {
                    Found::Nothing => Found::TooNew,
                    _ => found,
                },
                Found::Function(best) if best.since >= entry.since => found,
                _ => Found::Function(entry),
            };
        }
        found
    };
    if per_thread && let Found::Function(entry) = newest(true) {
        return Found::Function(entry);
    }
    newest(false)
}

/// Whether a C function is a form of what a plain name means.
fn is_variant(symbol: &str, name: &str, per_thread: bool) -> bool {
    let plain = match (name.strip_suffix("_ptsz")).or_else(|| name.strip_suffix("_ptds")) {
        Some(plain) if per_thread => plain,
        None if !per_thread => name,
        _ => return false,
    };
    if RENAMED.contains(&(symbol, plain)) {
        return true;
    }
    match plain.strip_prefix(symbol) {
        Some("") => true,
        Some(suffix) => matches!(suffix, "_v2" | "_v3" | "_v4" | "_v5"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(symbol: &str, version: i32) -> &'static str {
        match find(symbol, version, false) {
            Found::Function(entry) => entry.name,
            other => panic!("{symbol}: {}", other.status()),
        }
    }

    #[test]
    fn a_version_chooses_the_newest_form_that_it_has() {
        assert_eq!(name("cuMemAlloc", 12090), "cuMemAlloc_v2");
        assert_eq!(name("cuMemAlloc", 2000), "cuMemAlloc");
        assert_eq!(name("cuCtxCreate", 3020), "cuCtxCreate_v2");
        assert_eq!(name("cuCtxCreate", 12000), "cuCtxCreate_v3");
        assert_eq!(name("cuCtxCreate", 12090), "cuCtxCreate_v4");
        assert_eq!(name("cuGetProcAddress", 12000), "cuGetProcAddress_v2");
        assert_eq!(name("cuGetProcAddress", 11030), "cuGetProcAddress");
        assert_eq!(name("cuGraphInstantiate", 11000), "cuGraphInstantiate_v2");
        assert_eq!(
            name("cuGraphInstantiate", 12000),
            "cuGraphInstantiateWithFlags"
        );
        assert_eq!(name("cuDeviceGetUuid", 11040), "cuDeviceGetUuid_v2");
        assert_eq!(name("cuStreamDestroy", 4000), "cuStreamDestroy_v2");
        assert_eq!(name("cuLaunchHostFunc", 13000), "cuLaunchHostFunc");
        assert_eq!(name("cuLaunchHostFunc", 13020), "cuLaunchHostFunc_v2");
    }

    #[test]
    fn a_name_is_not_mistaken_for_a_longer_one() {
        assert_eq!(name("cuMemcpy", 12090), "cuMemcpy");
        assert_eq!(name("cuLaunchKernel", 12090), "cuLaunchKernel");
    }

    #[test]
    fn forms_for_the_stream_of_each_thread_are_found_when_asked_for() {
        let Found::Function(entry) = find("cuLaunchKernel", 12000, true) else {
            panic!("not found");
        };
        assert_eq!(entry.name, "cuLaunchKernel_ptsz");
        let Found::Function(entry) = find("cuMemAlloc", 12000, true) else {
            panic!("not found");
        };
        assert_eq!(entry.name, "cuMemAlloc_v2");
    }

    #[test]
    fn unknown_and_too_new_names_are_told_apart() {
        assert_eq!(find("cuNoSuchThing", 12090, false).status(), 1);
        assert_eq!(find("", 0, false).status(), 1);
        assert_eq!(find("cuLaunchKernelEx", 11000, false).status(), 2);
    }

    #[test]
    fn every_name_is_there_once() {
        let mut names: Vec<&str> = api::entries().map(|entry| entry.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(count > 600, "{count}");
    }
}
