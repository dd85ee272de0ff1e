-- Prosody for a Viaduct deployment: stock modules only.
-- deploy/quickstart replaces the words between at signs.

pidfile = "@PROSODY_DIR@/prosody.pid"
data_path = "@PROSODY_DIR@/data"
certificates = "@PROSODY_DIR@/certs"
log = { { levels = { min = "info" }, to = "file", filename = "@PROSODY_DIR@/prosody.log" } }
daemonize = false

interfaces = { "127.0.0.1" }
local_interfaces = { "127.0.0.1" }
http_interfaces = { "127.0.0.1" }
component_interfaces = { "127.0.0.1" }
c2s_ports = { @C2S_PORT@ }
http_ports = { @XMPP_HTTP_PORT@ }
component_ports = { @COMPONENT_PORT@ }
https_ports = {}
c2s_direct_tls_ports = {}

modules_enabled = {
    "roster"; "saslauth"; "tls"; "disco"; "ping"; "version"; "posix";
    "bosh"; "websocket"; "smacks";
}
modules_disabled = { "s2s"; "offline"; "register" }
allow_registration = false
authentication = "internal_hashed"

-- The web server in front ends TLS, or the page is on this very machine.
consider_bosh_secure = true
consider_websocket_secure = true
http_default_host = "@XMPP_DOMAIN@"

-- How long a vanished client stays in its room.
smacks_hibernation_time = 60

-- The focus owns every room; it and the bridges are never slowed by limits.
admins = { "focus@@AUTH_DOMAIN@", "jvb@@AUTH_DOMAIN@" }
unlimited_jids = { "focus@@AUTH_DOMAIN@", "jvb@@AUTH_DOMAIN@" }

VirtualHost "@XMPP_DOMAIN@"
    authentication = "anonymous"

VirtualHost "@AUTH_DOMAIN@"
    authentication = "internal_hashed"

Component "@MUC_DOMAIN@" "muc"
    storage = "memory"
    muc_room_locking = false
    muc_room_default_public_jids = true
    restrict_room_creation = true
    muc_room_cache_size = 10000
    muc_tombstones = false
    muc_room_allow_persistent = false

Component "@BREWERY_DOMAIN@" "muc"
    storage = "memory"
    muc_room_locking = false
    muc_room_default_public_jids = true
    restrict_room_creation = true
    muc_room_cache_size = 1000
    muc_tombstones = false
    muc_room_allow_persistent = false

Component "focus.@XMPP_DOMAIN@"
    component_secret = "@COMPONENT_SECRET@"
