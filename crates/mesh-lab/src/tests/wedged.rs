//! What hangs, and what does not start, on a node with two simulated radios: hostapd that answers no more, a radio on
//! which it can't work any more, and one that refuses WPA3. The simulation has no radio whose firmware crashes: here
//! hostapd is told so by a script in its place. Needs a machine with such radios, see `ci/radio`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use mesh_ipc::radio::AccessPoint;
use mesh_lab::lab::{Lab, Node, Result, told, wait_for};
use mesh_lab::report::{Report, say};

use super::common::{Step, secs};
use super::wireless::{child, crash, give, plan, planned, problem, serving, serving_on, signal};

const NODE: usize = 0;
/// Has one radio.
const OLD: usize = 1;
const FIRST: u32 = 24;
const RADIOS: [(usize, u32); 3] = [(NODE, 0x4_0000), (NODE, 0x8_0000), (OLD, 0x10_0000)];
/// As hostapd built without SAE, or on a radio whose number is in the file `bad`.
const HOSTAPD: &str = "#!/bin/sh
interface=$(sed -n s/^interface=//p \"$1\")
grep -q SAE \"$1\" && [ -e DIR/old ] && { echo \"Line 20: invalid key_mgmt 'SAE'\"; exit 1; }
[ -e DIR/bad ] && iw dev $interface info | grep -q \"wiphy $(cat DIR/bad)$\" && { echo 'nl80211: Failed to set beacon'; exit 1; }
exec /bin/hostapd \"$@\"
";
const WORDS: &str = "does not do what it is told to";

pub(crate) fn run(lab: &mut Lab, report: &mut Report) {
    let steps: [(&str, Step); 4] = [
        ("a_hostapd_that_refuses_wpa3_serves_wpa2", refuses),
        ("a_hostapd_that_hangs_is_replaced", hangs),
        ("a_radio_on_which_it_does_not_start_leaves_its_work_to_the_other", wedged),
        ("and_has_it_again_when_it_is_plugged_in_again", replugged),
    ];
    for (name, step) in steps {
        if report.test(&format!("wedged::{name}"), || step(lab)).is_none() {
            return;
        }
    }
}

/// Starts mesh-radio with that script in hostapd's place.
fn start(lab: &mut Lab, at: usize) -> Result<()> {
    let program = lab.binaries().join("mesh-radio");
    let node = lab.node(at)?;
    let folder = node.file("programs");
    fs::create_dir_all(&folder).map_err(told("folder"))?;
    let script = HOSTAPD.replace("DIR", &folder.display().to_string());
    fs::write(folder.join("hostapd"), script).map_err(told("script"))?;
    fs::set_permissions(folder.join("hostapd"), fs::Permissions::from_mode(0o755)).map_err(told("script"))?;
    // Where programs are looked for first.
    let script = format!(
        "mkdir -p /usr/local/sbin && mount --bind {} /usr/local/sbin && exec {} --config {} --state-dir {} --run-dir {}",
        folder.display(),
        program.display(),
        node.file("p2pmesh.toml").display(),
        node.file("state").display(),
        node.run_dir().display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]);
    node.spawn("mesh-radio", command)
}

fn refuses(lab: &mut Lab) -> Result<()> {
    for name in ["wedged", "old"] {
        let at = lab.add_node(name)?;
        let text = format!("hostname = \"{name}\"\nap.password = \"correct horse\"\nmesh.channel = 1\n");
        fs::write(lab.at(at)?.file("p2pmesh.toml"), text).map_err(told("p2pmesh.toml"))?;
        fs::create_dir_all(lab.at(at)?.file("programs")).map_err(told("folder"))?;
    }
    give(lab, FIRST, &RADIOS)?;
    fs::write(lab.at(OLD)?.file("programs").join("old"), "").map_err(told("file"))?;
    let begin = Instant::now();
    start(lab, OLD)?;
    let ap = serving(lab.at(OLD)?, secs(20))?;
    say(&format!("    WPA2 alone is on the air after {} ms", begin.elapsed().as_millis()));
    if ap.wpa3 {
        return Err(format!("{ap:?}: it does not offer WPA3"));
    }
    problem(lab.at(OLD)?, "key_mgmt", false, secs(2))
}

fn hangs(lab: &mut Lab) -> Result<()> {
    start(lab, NODE)?;
    let node = lab.at(NODE)?;
    serving(node, secs(20))?;
    let pid = child(node, "hostapd")?;
    signal(pid, "-STOP")?;
    let begin = Instant::now();
    back(node, pid, |_| true)?;
    say(&format!("    on the air again {} ms after hostapd hung", begin.elapsed().as_millis()));
    problem(node, "does not answer", false, secs(2))
}

/// Waits for another hostapd that serves like this.
fn back(node: &Node, pid: u32, like: impl Fn(&AccessPoint) -> bool) -> Result<AccessPoint> {
    wait_for("another hostapd that serves", secs(5), || match child(node, "hostapd") {
        Ok(new) if new != pid => {
            let ap = serving(node, secs(1))?;
            if like(&ap) { Ok(ap) } else { Err(format!("{ap:?}")) }
        }
        other => Err(format!("{other:?}")),
    })
}

/// The number of the radio that is an access point alone.
fn server(node: &Node) -> Result<u32> {
    let plan = plan(node)?;
    let phy = plan.phys.iter().find(|p| p.reason.starts_with("access point"));
    let number = phy.and_then(|p| p.name.strip_prefix("phy")?.parse().ok());
    number.ok_or_else(|| format!("{plan:?}"))
}

fn wedged(lab: &mut Lab) -> Result<()> {
    let node = lab.at(NODE)?;
    let radio = server(node)?;
    fs::write(node.file("programs").join("bad"), radio.to_string()).map_err(told("file"))?;
    let pid = child(node, "hostapd")?;
    crash(pid)?;
    let begin = Instant::now();
    back(node, pid, |ap| ap.frequency == 2412)?;
    say(&format!("    the other radio is the access point, too, {} ms after", begin.elapsed().as_millis()));
    planned(node, WORDS)?;
    problem(node, WORDS, true, secs(2))?;
    planned(node, "mesh point and access point")
}

fn replugged(lab: &mut Lab) -> Result<()> {
    use std::os::fd::AsFd;
    let node = lab.at(NODE)?;
    let bad = node.file("programs").join("bad");
    let text = fs::read_to_string(&bad).map_err(told("file"))?;
    let radio: u32 = text.parse().map_err(told("number"))?;
    fs::remove_file(&bad).map_err(told("file"))?;
    let outside = fs::File::open("/proc/self/ns/net").map_err(told("own namespace"))?;
    super::wireless::wifi(node, |nl| nl.set_namespace(radio, outside.as_fd()))?;
    problem(node, WORDS, false, secs(5))?;
    let mut nl = mesh_sys::netlink::nl80211::Nl80211::open().map_err(told("nl80211"))?.ok_or("no Wi-Fi")?;
    let begin = Instant::now();
    nl.set_namespace(radio, node.namespace()).map_err(told("moving a radio"))?;
    serving_on(node, 2437)?;
    say(&format!("    it is the access point again after {} ms", begin.elapsed().as_millis()));
    Ok(())
}
