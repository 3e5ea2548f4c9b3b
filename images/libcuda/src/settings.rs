//! What environment variables choose.

use std::env;
use std::sync::OnceLock;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Write every call to stderr.
    pub debug: bool,
    /// A device node, or `in-process`.
    pub device: Option<String>,
    /// Major and minor, in the place of the device's own.
    pub compute_capability: Option<(u32, u32)>,
    /// In the place of the device's own.
    pub driver_version: Option<i32>,
}

/// The settings of the process, read once.
pub fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| Settings::read(|name| env::var(name).ok()))
}

impl Settings {
    /// Reads the variables; one that cannot be understood counts for nothing.
    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name| variable(name).filter(|value| !value.is_empty());
        let capability = |text: String| {
            let (major, minor) = text.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        Self {
            debug: given("CXL_CUDA_DEBUG").is_some_and(|value| value != "0"),
            device: given("CXL_CUDA_DEVICE"),
            compute_capability: given("CXL_CUDA_COMPUTE_CAPABILITY").and_then(capability),
            driver_version: given("CXL_CUDA_DRIVER_VERSION").and_then(|text| text.parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_variables_the_device_speaks_for_itself() {
        let settings = Settings::read(|_| None);
        assert!(!settings.debug);
        assert_eq!(settings.compute_capability, None);
        assert_eq!(settings.driver_version, None);
    }

    #[test]
    fn variables_change_what_they_name() {
        let settings = Settings::read(|name| {
            let value = match name {
                "CXL_CUDA_DEBUG" => "1",
                "CXL_CUDA_COMPUTE_CAPABILITY" => "8.6",
                "CXL_CUDA_DRIVER_VERSION" => "13000",
                _ => "",
            };
            Some(value.to_owned())
        });
        assert!(settings.debug);
        assert_eq!(settings.device, None);
        assert_eq!(settings.compute_capability, Some((8, 6)));
        assert_eq!(settings.driver_version, Some(13000));
    }

    #[test]
    fn nonsense_counts_for_nothing() {
        let settings = Settings::read(|_| Some("x".into()));
        assert_eq!(settings.compute_capability, None);
        assert_eq!(settings.driver_version, None);
    }
}
