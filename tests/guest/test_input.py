# SPDX-License-Identifier: BSD-2-Clause
"""Keyboard, mouse, tablet and touch screen: what Linux makes of them, events by ctl, LEDs."""

import json
import os
import re
import subprocess
import time

from checks import attach, status, until, wait_for
from vm import PATIENCE

AXES = {"ABS_X": 32767, "ABS_Y": 32767}
RANGES = {"keyboard": {}, "mouse": {}, "tablet": AXES,
          "multitouch": {**AXES, "ABS_MT_SLOT": 9, "ABS_MT_TRACKING_ID": 65535, "ABS_MT_POSITION_X": 32767,
                         "ABS_MT_POSITION_Y": 32767}}
KINDS = tuple(RANGES)

# Links to the devices by the kind that is in their names, and a recording of what each tells.
WATCH = """
mkdir /dev/by-kind
for device in /sys/class/input/event*; do
    kind=$(sed -n 's/^test \\(.*\\)/\\1/p' $device/device/name)
    [ -z "$kind" ] || ln -s /dev/input/${device##*/} /dev/by-kind/$kind
done
for device in /dev/by-kind/*; do
    evtest $device >/tmp/${device##*/} 2>&1 &
done
"""

# A recording as evemu-record makes it: a click, and the pointer goes.
RECORDING = """# EVEMU 1.3
N: some mouse
I: 0003 046d c077 0111
E: 0.000001 0001 0110 0001	# EV_KEY / BTN_LEFT 1
E: 0.000001 0000 0000 0000	# ------------ SYN_REPORT (0) ----------
E: 0.200001 0001 0110 0000	# EV_KEY / BTN_LEFT 0
E: 0.200001 0002 0000 -017	# EV_REL / REL_X -17
E: 0.200001 0000 0000 0000	# ------------ SYN_REPORT (0) ----------
"""

# A line of evtest's: an event, or the end of an update.
EVENT = re.compile(r"Event: time [\d.]+, (?:type \d+ \(\w+\), code \d+ \((\w+)\), value (-?\d+)|-+ SYN_REPORT)")
END = ("", "")
REPEAT = "2"

# struct input_event, twice: a time, EV_LED, the code, the value; a SYN_REPORT. In one write.
LED = """(printf '\\0%.0s' $(seq 16); printf '\\021\\0\\{code}\\0\\{value}\\0\\0\\0'; printf '\\0%.0s' $(seq 24)) |
dd bs=48 iflag=fullblock of=/dev/by-kind/keyboard 2>/dev/null"""


def seen(guest, kind):
    """What evtest tells so far: an update a list of codes and values. A key that is held repeats in the guest; not here."""
    updates, update = [], []
    for code, value in EVENT.findall(guest.check(f"cat /tmp/{kind}")):
        if (code, value) == END:
            updates += [update] if update else []
            update = []
        elif value != REPEAT or code.startswith(("REL_", "ABS_")):
            update.append(f"{code} {value}")
    return updates


def told(guest, kind, *expected):
    """These updates, and no others, come; then they are forgotten."""
    wait_for(f"events of the {kind}", lambda: len(seen(guest, kind)) >= len(expected))
    assert seen(guest, kind) == [update.split(", ") for update in expected], seen(guest, kind)
    guest.check(f": >/tmp/{kind}")


def ctl(t, viodev, kind, *words, text=None):
    """`viodev ctl`, with text on its standard input: (status, messages)."""
    done = subprocess.run([t.viodev, "ctl", os.path.join(viodev.dir, kind + ".ctl"), *words], input=text,
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, done.stderr


def described(t, guest, viodev):
    """INPUT-03, INPUT-04: Linux takes each for what it is, with its name, serial number, ranges and handlers."""
    for kind, handler in zip(KINDS, ("kbd", "mouse", "mouse", "mouse")):
        text = guest.check(f"grep -A 7 'Name=\"test {kind}\"' /proc/bus/input/devices")
        assert f"Uniq=serial-{kind}\n" in text and re.search(rf"Handlers=.*\b{handler}", text), text
        about = guest.check(f"cat /tmp/{kind}")
        assert "Testing ..." in about, about
        for axis, last in RANGES[kind].items():
            assert re.search(rf"\({axis}\)\n *Value +0\n *Min +0\n *Max +{last}\n", about), f"{axis}: {about}"
        guest.check(f": >/tmp/{kind}")
    assert "LED_CAPSL" not in status(viodev, "keyboard")["leds"]


def injected(t, guest, viodev):
    """INPUT-05, INPUT-07: the events that ctl injects, word for word; an update is an update."""
    viodev.ctl("keyboard", "inject", "key", "KEY_LEFTSHIFT", 1, "key", "a", 1)
    viodev.ctl("keyboard", "inject", "key", "30", 0, "key", "leftshift", 0)
    told(guest, "keyboard", "KEY_LEFTSHIFT 1, KEY_A 1", "KEY_A 0, KEY_LEFTSHIFT 0")
    viodev.ctl("mouse", "inject", "rel", "x", -5, "rel", "REL_Y", 7, "btn", "right", 1)
    viodev.ctl("mouse", "inject", "btn", "right", 0, "rel", "wheel", -1)
    told(guest, "mouse", "REL_X -5, REL_Y 7, BTN_RIGHT 1", "BTN_RIGHT 0, REL_WHEEL -1")
    viodev.ctl("tablet", "inject", "abs", "x", 32767, "abs", "y", 12345)
    viodev.ctl("tablet", "inject", "btn", "side", 1)
    viodev.ctl("tablet", "inject", "btn", "side", 0, "rel", "hwheel", 1)
    told(guest, "tablet", "ABS_X 32767, ABS_Y 12345", "BTN_SIDE 1", "BTN_SIDE 0, REL_HWHEEL 1")
    result, message = ctl(t, viodev, "tablet", "inject", "abs", "x", "32768")
    assert result != 0 and "must be 0 to 32767" in message, message


def piped(t, guest, viodev):
    """A finger touches, moves and goes: JSON from a pipe. A line that is wrong ends it."""
    touch = ("abs mt_slot 1 abs mt_tracking_id 45 abs mt_position_x 100 abs mt_position_y 200 btn touch 1",
             "abs mt_position_x 110", "abs mt_tracking_id -1 btn touch 0")
    text = "".join(json.dumps(["inject", *words.split()]) + "\n" for words in touch)
    assert ctl(t, viodev, "multitouch", "-", text=text) == (0, "")
    told(guest, "multitouch", "ABS_MT_SLOT 1, ABS_MT_TRACKING_ID 45, ABS_MT_POSITION_X 100, ABS_MT_POSITION_Y 200, BTN_TOUCH 1",
         "ABS_MT_POSITION_X 110", "ABS_MT_TRACKING_ID -1, BTN_TOUCH 0")
    result, message = ctl(t, viodev, "mouse", "-", text='["inject", "rel", "x", "1"]\n["inject"\n["inject", "rel", "x", "2"]\n')
    assert result == 2 and "line 2" in message, message
    told(guest, "mouse", "REL_X 1")


def replayed(t, guest, viodev):
    """A recording happens again, in its own time."""
    path = t.tmp / "recording"
    path.write_text(RECORDING)
    start = time.monotonic()
    assert ctl(t, viodev, "mouse", "replay", path) == (0, "")
    assert 0.2 <= time.monotonic() - start
    told(guest, "mouse", "BTN_LEFT 1", "BTN_LEFT 0, REL_X -17")


def lights(t, guest, viodev):
    """INPUT-08: LEDs come back: the kernel's own for a key, and those that a program sets."""
    for value in "1", "0":
        viodev.ctl("keyboard", "inject", "key", "capslock", 1)
        viodev.ctl("keyboard", "inject", "key", "capslock", 0)
        wait_for("Caps Lock", lambda: status(viodev, "keyboard")["leds"] == (["LED_CAPSL"] if value == "1" else []))
    guest.check(LED.format(code=0, value=1))
    wait_for("Num Lock", lambda: status(viodev, "keyboard")["leds"] == ["LED_NUML"])
    assert "\nleds: LED_NUML\n" in viodev.ctl("keyboard", "status")
    wait_for("the last event", lambda: ["LED_NUML 1"] in seen(guest, "keyboard"))
    guest.check(": >/tmp/keyboard")


def refused(t, guest, viodev):
    """What a device does not have, or nobody knows."""
    for words, message in (("rel", "x", "1"), "not supported"), (("key", "KEY_NONSENSE", "1"), "no such code"), \
            (("foo", "1", "1"), "must be key"), (("key", "a"), "TYPE CODE VALUE"):
        result, text = ctl(t, viodev, "keyboard", "inject", *words)
        assert result == 1 and message in text, text
    assert seen(guest, "keyboard") == []


def rebound(t, guest, viodev):
    """INPUT-09: without a driver there are no events, and none of that time come later."""
    guest.check("driver=/sys/bus/virtio/drivers/virtio_input; cd $driver; for d in virtio*; do echo $d; done >/tmp/bound; "
                "for d in $(cat /tmp/bound); do echo $d >unbind; done")
    result, message = ctl(t, viodev, "keyboard", "inject", "key", "a", "1")
    assert result == 1 and "no driver" in message, message
    guest.check("cd /sys/bus/virtio/drivers/virtio_input; for d in $(cat /tmp/bound); do echo $d >bind; done")
    guest.check("rm -r /dev/by-kind;" + WATCH)
    guest.check(until("grep -q Testing /tmp/keyboard") + "; : >/tmp/keyboard")
    viodev.ctl("keyboard", "inject", "key", "b", 1)
    viodev.ctl("keyboard", "inject", "key", "b", 0)
    told(guest, "keyboard", "KEY_B 1", "KEY_B 0")


def test_kinds(t):
    """Four devices at once: what they are, events by ctl in each way, LEDs, the driver gone and back."""
    with t.serve(*[f"input,id={kind},kind={kind},name=test {kind},serial=serial-{kind}" for kind in KINDS]) as viodev:
        with t.guest(attach(viodev), tools=True) as guest:
            guest.check(WATCH + until("[ $(cat /tmp/multitouch /tmp/mouse /tmp/tablet /tmp/keyboard | grep -c Testing) = 4 ]"))
            for check in (described, injected, piped, replayed, lights, refused, rebound):
                check(t, guest, viodev)
                t.say(check.__name__)
        for kind in KINDS:
            wait_for(f"{kind}: the guest's end", lambda: not status(viodev, kind)["listening"])
            told = status(viodev, kind)
            assert told["driver-errors"] == 0 and told["updates-dropped"] == 0, told
