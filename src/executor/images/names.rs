//! Names inside an archive, taken apart before anything is opened.

use super::error::ImageError;

/// Longest path, as Linux has it.
pub(super) const PATH_MAX_BYTES: usize = 4096;
/// Longest part of a path, as Linux has it.
const NAME_MAX_BYTES: usize = 255;
/// Deepest path: honest images stay below 60, and a tree is removed level by level.
pub(in crate::executor) const DEPTH_MAX: usize = 200;

/// Parts of a relative path: none is empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::executor) struct Parts(Vec<String>);

impl Parts {
    /// Takes a path apart. `./` in front and doubled separators mean nothing.
    ///
    /// # Errors
    /// [`ImageError::Path`] for a path that is absolute, climbs, or is no text.
    pub(in crate::executor) fn of(path: &[u8]) -> Result<Self, ImageError> {
        let refused = || ImageError::Path(shown(path));
        let text = std::str::from_utf8(path).map_err(|_| refused())?;
        if text.starts_with('/') || text.len() > PATH_MAX_BYTES || text.contains('\0') {
            return Err(refused());
        }
        let parts = text.split('/').filter(|part| !matches!(*part, "" | "."));
        let parts: Vec<String> = parts.map(str::to_owned).collect();
        let is_fine = |part: &String| part != ".." && part.len() <= NAME_MAX_BYTES;
        if parts.len() > DEPTH_MAX || !parts.iter().all(is_fine) {
            return Err(refused());
        }
        Ok(Self(parts))
    }

    /// The directories above, and the last part; `None` for the root itself.
    pub(in crate::executor) fn split(&self) -> Option<(&[String], &str)> {
        self.0.split_last().map(|(last, above)| (above, last.as_str()))
    }

    pub(in crate::executor) fn joined(&self) -> String {
        self.0.join("/")
    }
}

/// A name that may go into a message: nothing in it that a terminal obeys, and short.
pub(in crate::executor) fn shown(path: &[u8]) -> String {
    super::super::state::printable(&String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_climbs_or_is_no_name_is_refused() {
        let deep = "a/".repeat(DEPTH_MAX + 1);
        let long = "x".repeat(NAME_MAX_BYTES + 1);
        let table: [(&[u8], Option<&str>); 13] = [
            (b"a/b", Some("a/b")),
            (b"./a//b/", Some("a/b")),
            (b"./", Some("")),
            (b"...", Some("...")),
            (b"a b\\c", Some("a b\\c")),
            (b"/etc/passwd", None),
            (b"..", None),
            (b"a/../../b", None),
            (b"a/..", None),
            (b"a\0b", None),
            (b"caf\xe9", None),
            (deep.as_bytes(), None),
            (long.as_bytes(), None),
        ];
        for (path, expected) in table {
            let parts = Parts::of(path).ok().map(|parts| parts.joined());
            assert_eq!(parts.as_deref(), expected, "{}", shown(path));
        }
    }

    proptest! {
        #[test]
        fn what_is_allowed_stays_below(path in "[./a-c\\PC]{0,40}") {
            if let Ok(parts) = Parts::of(path.as_bytes()) {
                let joined = std::path::Path::new("root").join(parts.joined());
                let climbs = joined.components().any(|part| part == std::path::Component::ParentDir);
                prop_assert!(joined.starts_with("root") && !climbs);
                prop_assert_eq!(Parts::of(parts.joined().as_bytes()).ok(), Some(parts));
            }
        }
    }
}
