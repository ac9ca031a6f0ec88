#!/usr/bin/env bash
# prosody 0.12.3 (Debian 12), rooms (mod_muc): from the 101st room in use on, a message costs six to fourteen times the CPU.
#
# A good guess: a room with people in it is in memory; muc_room_cache_size, 100 as it comes, is for those that are idle.
# Seen: it counts the rooms with people in them too. With one more than that, a message to the room that was longest without
# one first writes another room with its occupants to storage and reads its own from there. It arrives all the same; nothing
# but a metric (room_eviction) and the debug log says so. A service with 101 chats in turn pays that for each message.
# A muc_room_cache_size above the number of rooms in use makes it go away.
#
# Output seen (one occupant a room, five messages a room in turn; three runs, 2,600 to 3,517 us against 217 to 467):
#   muc_room_cache_size as it comes: 90 rooms 356 us of CPU a message, 120 rooms 3200 us; 1000: 120 rooms 217 us
#
# Exits 0 if 120 rooms cost more than twice as much, 1 if not, 2 without apt-get, dpkg-deb or python3. Loopback; some 10 s.
set -euo pipefail

for tool in apt-get dpkg-deb python3; do
  command -v "$tool" >/dev/null || { echo "$tool is needed" >&2; exit 2; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -qq download prosody=0.12.3-1+deb12u1 lua5.4 liblua5.4-0 lua-expat lua-filesystem lua-sec lua-socket >/dev/null
for package in *.deb; do dpkg-deb -x "$package" .; done

cat >rooms.py <<'SCRIPT'
import base64, os, pathlib, re, socket, subprocess, sys, time

HERE = pathlib.Path.cwd()
LIBRARIES = next(HERE.glob("usr/lib/*-linux-gnu*"))
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
ENVIRONMENT = os.environ | {
    "PROSODY_SRCDIR": f"{HERE}/usr/lib/prosody",
    "LUA_PATH": f"{HERE}/usr/share/lua/5.4/?.lua;{HERE}/usr/share/lua/5.4/?/init.lua",
    "LUA_CPATH": f"{LIBRARIES}/lua/5.4/?.so",
    "LD_LIBRARY_PATH": str(LIBRARIES),
}
CONFIGURATION = """
run_as_root = true; data_path = "{data}"; log = {{ error = "{data}/log" }}
modules_enabled = {{ "saslauth", "presence", "message", "iq" }}; modules_disabled = {{ "s2s", "offline" }}
authentication = "insecure"; insecure_open_authentication = "Yes please, I know what I'm doing!"
c2s_require_encryption = false; allow_unencrypted_plain_auth = true
c2s_ports = {{ {port} }}; c2s_interfaces = {{ "127.0.0.1" }}
VirtualHost "localhost"
Component "rooms.localhost" "muc"
muc_room_locking = false
{more}
"""
STREAM = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
MESSAGE = "<message type='groupchat' to='{}@rooms.localhost' id='m'><body>hello</body></message>"
JOIN = "<presence to='{}@rooms.localhost/me'><x xmlns='http://jabber.org/protocol/muc'/></presence>"


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def message_us(rooms, more):
    data = HERE / f"data-{rooms}-{len(more)}"
    (data / "certs").mkdir(parents=True)
    (data / "prosody.cfg.lua").write_text(CONFIGURATION.format(data=data, port=PORT, more=more))
    command = [f"{HERE}/usr/bin/lua5.4", f"{HERE}/usr/bin/prosody", "--config", f"{data}/prosody.cfg.lua", "-F"]
    server = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                link = socket.create_connection(("127.0.0.1", PORT), 10)
                break
            except OSError:
                time.sleep(0.1)
        heard = b""

        def say(text, until):
            nonlocal heard
            link.sendall(text.encode())
            while not (found := re.search(until, heard)):
                got = link.recv(65536)
                assert got, "the server closed the connection"
                heard += got
            heard = heard[found.end() :]

        say(STREAM, b"</stream:features>")
        login = base64.b64encode(b"\0me\0me").decode()
        say(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{login}</auth>", b"<success[^>]*>")
        say(STREAM, b"</stream:features>")
        say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", b"</iq>")
        for room in range(rooms):
            say(JOIN.format(room), b"<subject/>|</subject>")
        before = cpu_s(server.pid)
        for _ in range(5):
            for room in range(rooms):
                say(MESSAGE.format(room), b"hello.*?</message>")
        return (cpu_s(server.pid) - before) / rooms / 5 * 1e6
    finally:
        server.kill()
        server.wait()


few, many, larger = message_us(90, ""), message_us(120, ""), message_us(120, "muc_room_cache_size = 1000")
print(f"muc_room_cache_size as it comes: 90 rooms {few:.0f} us of CPU a message, 120 rooms {many:.0f} us; 1000: 120 rooms {larger:.0f} us")
sys.exit(0 if many > 2 * few and many > 2 * larger else 1)
SCRIPT
python3 rooms.py
