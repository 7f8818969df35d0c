//! As whom the command of an image runs.

use crate::executor::images::ImageError;

/// User, group and further groups within a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// Looks up what the image names: `user`, `uid`, `user:group` or `uid:gid`, empty for root.
/// `passwd` and `group` are the files of these names in its `/etc`, empty if it has none.
///
/// # Errors
/// [`ImageError::User`] for a name that they do not have, or a number that a lease has not.
pub(super) fn look_up(user: &str, passwd: &str, group: &str) -> Result<Ids, ImageError> {
    if user.is_empty() {
        return Ok(Ids::default());
    }
    let refused = |name: &str| ImageError::User(name.chars().take(64).collect());
    let (name, named_group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let line =
        fields(passwd).find(|line| line.first() == Some(&name) || line.get(2) == Some(&name));
    let uid = match &line {
        Some(line) => number(line.get(2).copied().unwrap_or_default()),
        None => number(name),
    };
    let uid = uid.ok_or_else(|| refused(name))?;
    let gid = match named_group {
        None => line.as_ref().and_then(|line| number(line.get(3)?)).unwrap_or(0),
        Some(wanted) => {
            let line = fields(group).find(|line| line.first() == Some(&wanted));
            let gid = line.map_or_else(|| number(wanted), |line| number(line.get(2)?));
            gid.ok_or_else(|| refused(wanted))?
        }
    };
    let account = line.as_ref().and_then(|line| line.first().copied()).unwrap_or_default();
    let is_member = |line: &Vec<&str>| {
        let members = line.get(3).copied().unwrap_or_default();
        !account.is_empty() && members.split(',').any(|member| member == account)
    };
    let groups = fields(group).filter(is_member).filter_map(|line| number(line.get(2)?));
    Ok(Ids { uid, gid, groups: groups.filter(|other| *other != gid).collect() })
}

fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id < super::cgroup::RANGE_IDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_runs_as_whom_it_names() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/:/bin/false\nodd:x:70000:1::/:\n";
        let group = "root:x:0:\nwww:x:102:\nlogs:x:7:web,other\n";
        let ids = |uid, gid, groups: &[u32]| Some(Ids { uid, gid, groups: groups.to_vec() });
        let table = [
            ("", ids(0, 0, &[])),
            ("web", ids(101, 102, &[7])),
            ("101", ids(101, 102, &[7])),
            ("web:logs", ids(101, 7, &[])),
            ("web:5", ids(101, 5, &[7])),
            ("1000", ids(1000, 0, &[])),
            ("1000:1001", ids(1000, 1001, &[])),
            ("nobody", None),
            ("web:nogroup", None),
            ("odd", None),
            ("65536", None),
            ("-1", None),
        ];
        for (user, expected) in table {
            assert_eq!(look_up(user, passwd, group).ok(), expected, "{user}");
        }
    }
}
