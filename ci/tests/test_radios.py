"""An emulated Pi with simulated radios: the image's own kernel, modules, hostapd and services bring up an access point and
a mesh. Two more radios in a network namespace are the others: a mesh point made by hand, and a phone."""

import json
import unittest

from test_pis import BOOT, Pis, until

# The other mesh point; the node has to find it there.
FREQUENCY = 2437
PHONE = 'network={\\n ssid="%s"\\n psk="password"\\n key_mgmt=WPA-PSK\\n}\\n'
# Keeps what the node gave, as the image's own would.
LEASE = "#!/bin/sh\\n[ $1 = bound ] && ip addr add $ip/$mask dev $interface && echo lease $ip from $serverid\\n"


class Radios(Pis):
    """AP, mesh and client of the arm64 image, once."""

    def test_access_point_and_mesh_come_up_on_simulated_radios(self):
        pi = self.make("radios", direct=True)
        pi.start()
        self.ready(pi)
        # Until two of the radios are elsewhere, none is the node's.
        pi.run("meshctl workshop manual")
        pi.run("modprobe mac80211_hwsim radios=4 && unshare -n sleep 9999 & echo $! >/tmp/pid", 60)
        until(pi, "ls /sys/class/ieee80211", r"phy3", 60)
        pi.run("for phy in phy2 phy3; do iw phy $phy set netns $(cat /tmp/pid); done")
        pi.run('there() { nsenter -t $(cat /tmp/pid) -n "$@"; }')
        pi.run(f"there iw dev wlan2 set type mp && there ip link set wlan2 up && there iw dev wlan2 mesh join p2pmesh freq {FREQUENCY}")
        pi.run("meshctl workshop auto")

        until(pi, "meshctl --json radio", r'"serving": ?true', BOOT)
        until(pi, "meshctl --json radio", r'"peer": ?true', BOOT)
        radio = json.loads(pi.run("meshctl --json radio"))
        mesh = next(i for i in radio["interfaces"] if i["name"] == "mesh0")
        self.assertEqual((mesh["role"], mesh["running"]), ("mesh", True), mesh)
        self.assertIn(f"{FREQUENCY} MHz, where this mesh was heard", str(radio["phys"]))
        self.assertEqual(radio["access_point"]["ssid"], "radios")
        # The same, as other programs see it.
        self.assertIn("ESTAB", pi.run("iw dev mesh0 station dump"))
        self.assertRegex(pi.run("iw dev ap0 info"), r"ssid radios\n(.*\n)*\ttype AP\n")
        self.assertRegex(pi.run("there iw dev wlan2 station dump"), r"mesh plink:\s+ESTAB")

        pi.run(f"printf '{PHONE % 'radios'}' >/tmp/phone.conf && printf '{LEASE}' >/tmp/lease && chmod +x /tmp/lease")
        pi.run("there wpa_supplicant -B -D nl80211 -i wlan3 -c /tmp/phone.conf >/dev/null")
        until(pi, "there iw dev wlan3 link", r"Connected to .*\n(.*\n)*\s+SSID: radios", 60)
        lease = pi.run("there udhcpc -f -q -n -t 10 -i wlan3 -s /tmp/lease 2>/dev/null", 60)
        self.assertRegex(lease, r"lease 10\.0\.0\.\d+ from 10\.0\.0\.1")
        self.assertRegex(pi.run("there ping -c 1 -W 5 10.0.0.1"), r" 0% packet loss")
        until(pi, "meshctl radio", r"1 client\b", 30)
        pi.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
