//! Users and groups out of `/etc/passwd` and `/etc/group` (passwd(5), group(5)).

use std::path::Path;

use mesh_sys::process::Credentials;

/// The group that may use the control sockets and read the node's identity.
pub(crate) const MESH_GROUP: &str = "mesh";

/// The credentials of `user`, its further groups included.
pub(crate) fn lookup(etc: &Path, user: &str) -> Result<Credentials, String> {
    let read = |file: &str| {
        let path = etc.join(file);
        std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    credentials(&read("passwd")?, &read("group")?, user)
        .ok_or_else(|| format!("there is no user {user:?} in {}", etc.join("passwd").display()))
}

/// The number of a group.
pub(crate) fn group_id(etc: &Path, name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(etc.join("group")).ok()?;
    text.lines().find_map(|l| {
        let mut fields = l.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn credentials(passwd: &str, group: &str, user: &str) -> Option<Credentials> {
    let (uid, gid) = passwd.lines().find_map(|l| {
        let mut fields = l.split(':');
        if fields.next()? != user {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, fields.next()?.parse().ok()?))
    })?;
    let member_of = |l: &str| {
        let mut fields = l.split(':');
        let id = fields.nth(2)?.parse().ok()?;
        fields.next()?.split(',').any(|m| m == user).then_some(id)
    };
    Some(Credentials { uid, gid, groups: group.lines().filter_map(member_of).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_their_groups() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nmesh-router:x:901:900::/:/bin/false\nbroken:x:y:z\n";
        let group = "root:x:0:\nmesh:x:900:a,b\ndisk:x:6:mesh-router,b\nbad\n";
        let c = credentials(passwd, group, "mesh-router").unwrap();
        assert_eq!((c.uid, c.gid, c.groups), (901, 900, vec![6]));
        assert!(credentials(passwd, group, "nobody").is_none());
        assert!(credentials(passwd, group, "broken").is_none());
    }
}
