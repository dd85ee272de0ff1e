// The promises of issue 5: how close to the limit of the machine. Rounds are
// interleaved: in each, every line's server is started anew, and the roofline of
// the line's own shape is measured in the same minute and is 1.
//
//   ROUNDS=N        rounds (5)
//   SECONDS=N       measured seconds of a run (7), after 2 s
//   PROGRAMS=DIR    viaduct-bridge and viaduct-loadtest (target/release, built if absent)
//   ROOFLINE=PATH   the roofline tool to take in place of our own
//   JVB_START=PATH  starts a jitsi-videobridge to compare with, measured in the same
//                   rounds: run as PATH NETNS ADDRESS, it stays in the foreground with
//                   its pid, its media on ADDRESS, REST on 127.0.0.1:JVB_HTTP (19080)
//   JVB_SHAPES=LIST its shapes (1to30,10x10)
//   JVB_WARM=N      seconds of load before it is measured (60)
//   PLACE=loopback  without network namespaces (the default needs root)
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { check, Deployment, finish, only, out, root, run, Skip, sleep } from './harness.mjs';

const rounds = Number(process.env.ROUNDS || 5);
const seconds = process.env.SECONDS || '7';
const programs = path.resolve(process.env.PROGRAMS || path.join(root, 'target/release'));
const bridge = path.join(programs, 'viaduct-bridge');
const loadtest = path.join(programs, 'viaduct-loadtest');
const [SERVER_CPU, CLIENT_CPU] = ['0', '1'];
const HTTP = 18_980, MEDIA = 18_981;

if (os.cpus().length < 2) { console.error('two CPUs are needed: one for the server, one for the load'); process.exit(64); }
if (!fs.existsSync(bridge) || !fs.existsSync(loadtest)) {
    const built = spawnSync('cargo', ['build', '--release', '--workspace', '--bins'], { cwd: root, stdio: 'inherit' });
    if (built.status !== 0) { process.exit(1); }
}

// Server and members in networks of their own, a pair of interfaces between them.
const place = (() => {
    if (process.env.PLACE === 'loopback' || process.getuid() !== 0) { return { server: [], address: '127.0.0.1', load: [], roofline: [] }; }
    const name = `viaduct-load-${process.pid}`, members = `${name}-m`;
    const ip = (...args) => { const ran = spawnSync('ip', args); if (ran.status !== 0) { throw new Error(`ip ${args.join(' ')}: ${ran.stderr}`); } };
    process.on('exit', () => { for (const ns of [name, members]) { spawnSync('ip', ['netns', 'del', ns]); } });
    for (const signal of ['SIGINT', 'SIGTERM']) { process.on(signal, () => process.exit(1)); }
    for (const ns of [name, members]) { ip('netns', 'add', ns); ip('-n', ns, 'link', 'set', 'lo', 'up'); }
    ip('-n', name, 'link', 'add', 'server', 'type', 'veth', 'peer', 'name', 'members', 'netns', members);
    for (const [ns, link, address] of [[name, 'server', '10.79.0.1/24'], [members, 'members', '10.79.0.2/24']]) {
        ip('-n', ns, 'addr', 'add', address, 'dev', link);
        ip('-n', ns, 'link', 'set', link, 'up');
    }
    return { name, server: ['ip', 'netns', 'exec', name], address: '10.79.0.1', load: ['--netns', members],
        roofline: ['--fwd-ip', '10.79.0.1', '--peer-ip', '10.79.0.2', '--netns', members] };
})();

const median = of => { const s = [...of].sort((a, b) => a - b); return s.length % 2 ? s[(s.length - 1) / 2] : (s[s.length / 2 - 1] + s[s.length / 2]) / 2; };
const spread = (of, digits = 2) => `${median(of).toFixed(digits)} (${Math.min(...of).toFixed(digits)}-${Math.max(...of).toFixed(digits)})`;

async function end(child) {
    child.kill('SIGTERM');
    await new Promise(gone => { if (child.exitCode !== null || child.signalCode) { gone(); } else { child.on('exit', gone); } });
}

/// A fresh bridge on its CPU for the time of `work`.
async function withBridge(name, work, { workers = 1, cpus = SERVER_CPU } = {}) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'load-bridge-'));
    const config = path.join(folder, 'jvb.conf');
    fs.writeFileSync(config, `videobridge {
        apis.rest.enabled = true
        http-servers { private { host = "127.0.0.1", port = ${HTTP} }, public { port = -1 } }
        ice.udp.port = ${MEDIA}
        websockets.enabled = false
        health.require-valid-address = false
      }
      ice4j.harvest.allowed-addresses = [ "${place.address}" ]
      viaduct.bridge { state-dir = "${folder}", workers = ${workers} ${place.server.length ? '' : ', advertise-loopback = true'} }\n`);
    const log = fs.openSync(path.join(out, `${name}.log`), 'a');
    const child = spawn(...command([...place.server, 'taskset', '-c', cpus, bridge, '--config', config]), { stdio: ['ignore', log, log] });
    try {
        for (let tries = 0; ; tries++) {
            const up = await fetchInside('/about/health').catch(() => null);
            if (up !== null) { break; }
            if (tries > 100 || child.exitCode !== null) { throw new Error(`the bridge did not start: ${path.join(out, `${name}.log`)}`); }
            await sleep(50);
        }
        return await work(child.pid);
    } finally {
        await end(child);
        fs.closeSync(log);
        fs.rmSync(folder, { recursive: true, force: true });
    }
}

/// The bridge's private HTTP is in its own network.
async function fetchInside(where) {
    const ran = await run(...command([...place.server, 'curl', '-sf', '--max-time', '2', `http://127.0.0.1:${HTTP}${where}`]));
    if (ran.status !== 0) { throw new Error(`${where}: ${ran.stderr}`); }
    return ran.stdout;
}
const counter = async name => Number(new RegExp(`^${name} (\\S+)`, 'm').exec(await fetchInside('/metrics'))?.[1] ?? NaN);

const command = ([program, ...args]) => [program, args];

let serial = 0;
/// A run of the load; its report. Throws if it does not count.
async function load(name, pid, args, { target = `127.0.0.1:${HTTP}`, invalid = false } = {}) {
    const file = path.join(out, `${String(++serial).padStart(3, '0')}-${name}.json`);
    const [program, ...rest] = [...place.server, loadtest, 'run', `colibri2+http://${target}`, '--json', file, '--html', file.replace('.json', '.html'),
        '--pid', String(pid), '--cpu', CLIENT_CPU, ...place.load, ...['--seconds', seconds, '--warmup', '2'].filter((_, i, all) => !args.includes(all[i - i % 2])), ...args];
    const ran = await run(program, rest);
    fs.writeFileSync(file.replace('.json', '.txt'), ran.stdout + ran.stderr);
    if (!fs.existsSync(file)) { throw new Error(`the load gave no report: ${ran.stderr.slice(-400)}`); }
    const report = JSON.parse(fs.readFileSync(file));
    if (!invalid && report.invalid.length) { throw new Error(`${name}: ${report.invalid.join('; ')}`); }
    return report;
}

/// Microseconds a packet of the roofline under the same pace, fan-out and size.
async function roofline(report) {
    const fanout = report.asked.participants - 1;
    const pace = Math.round(report.sent_per_second);
    const keep = Math.min(1, report.expected / report.seconds / (report.sent_per_second * fanout));
    const size = Math.round(report.mean_octets);
    const common = ['--fanout', fanout, '--size', size, '--pace', pace, '--keep', keep.toFixed(4), '--packets', Math.round(pace * fanout * 2), '--runs', 3,
        '--send', 'mmsg', '--core', SERVER_CPU, '--peer-core', CLIENT_CPU, ...place.roofline].map(String);
    const tool = process.env.ROOFLINE ? [path.resolve(process.env.ROOFLINE), ...common] : [loadtest, 'roofline', ...common];
    const ran = await run(...command([...place.server, ...tool]));
    const line = ran.stdout.trim().split('\n').at(-1);
    if (!line?.startsWith('{')) { throw new Error(`roofline: ${ran.stderr.slice(-300)}`); }
    return JSON.parse(line).ns_per_fwd / 1000;
}

// ---- the rounds: every row once a round, one after the other ----

const shapes = ['1to30', '10x10', '20x20', '1to150'];
const rows = [
    ...shapes.map(shape => ({ name: shape, args: ['--shape', shape] })),
    ...shapes.map(shape => ({ name: `${shape} feedback`, args: ['--shape', shape, '--feedback', 'full'] })),
    { name: '20x20 real', args: ['--shape', '20x20', '--profile', 'real'] },
    { name: '1to10', args: ['--shape', '1to10'] },
    { name: '1to100', args: ['--shape', '1to100'] },
    { name: '1to500', args: ['--shape', '1to500'] },
];
const lines = {
    ratio: ['1to30', '10x10', '20x20', '1to150'], feedback: shapes.flatMap(s => [s, `${s} feedback`]), encoder: ['20x20 real'], flat: ['1to10', '1to100', '1to500'],
};
const wanted = new Set(only.length ? Object.entries(lines).filter(([line]) => only.some(word => line.includes(word) || word.includes(line))).flatMap(([, names]) => names) : rows.map(row => row.name));
const measured = new Map(rows.map(row => [row.name, []]));
const troubles = new Map();
const TRIES = 3;
/// Measures a row until the load was not the bottleneck, a few times at most.
async function measure(round, row) {
    const name = `${round}-${row.name.replace(/ /g, '-')}`;
    const once = () => withBridge(name, async pid => {
        const report = await load(name, pid, row.args, { invalid: true });
        const [datagrams, messages] = [await counter('viaduct_udp_datagrams_sent_total'), await counter('viaduct_udp_messages_sent_total')];
        return { report, segments: datagrams / messages };
    });
    let figures = await once();
    for (let tries = 1; tries < TRIES && figures.report.invalid.length; tries++) {
        console.log(`again round ${round}, ${row.name}: ${figures.report.invalid.join('; ')}`);
        figures = await once();
    }
    const limit = await roofline(figures.report);
    const cpu = figures.report.server.cpu_us_per_packet;
    measured.get(row.name).push({ ...figures, limit, cpu, ratio: cpu / limit });
    if (figures.report.invalid.length) { throw new Error(figures.report.invalid.join('; ')); }
}
for (let round = 1; round <= rounds; round++) {
    for (const row of rows.filter(row => wanted.has(row.name))) {
        await measure(round, row).catch(error => troubles.set(row.name, `round ${round}: ${error.message}`));
    }
}

fs.writeFileSync(path.join(out, 'rounds.json'), JSON.stringify(Object.fromEntries([...measured].filter(([, all]) => all.length).map(([name, all]) =>
    [name, all.map(({ ratio, cpu, limit, report }) => ({ ratio, cpu, limit, delivered: report.delivered_ratio, p99: report.delay_ms.p99 }))])), null, 1));

/// All rounds of a row, or why there are not all.
function of(name) {
    if (!wanted.has(name)) { throw new Skip(`${name} is not among what ONLY names`); }
    if (troubles.has(name)) { throw new Error(troubles.get(name)); }
    const all = measured.get(name);
    if (all.length !== rounds) { throw new Error(`${all.length} of ${rounds} rounds`); }
    return { all, ratio: all.map(m => m.ratio), cpu: all.map(m => m.cpu), limit: all.map(m => m.limit), report: all.map(m => m.report) };
}
const delivered = r => { const least = Math.min(...r.report.map(x => x.delivered_ratio)); if (least < 0.999) { throw new Error(`delivered ${least.toFixed(5)}`); } return least; };
const atMost = (value, limit, text) => { if (!(value <= limit)) { throw new Error(`${text}: more than ${limit}`); } return text; };

for (const shape of shapes) {
    await check(`ratio to the roofline, ${shape}: at most 1.5`, async () => {
        const r = of(shape);
        delivered(r);
        return atMost(median(r.ratio), 1.5, `${spread(r.ratio)} (${spread(r.cpu)} us over ${spread(r.limit)} us), p99 ${spread(r.report.map(x => x.delay_ms.p99), 3)} ms${median(r.ratio) <= 1.25 ? ', within the aim of 1.25' : ''}`);
    });
}
await check('ratio: p99 delay of 10x10 at most 0.4 ms', async () => {
    const delays = of('10x10').report.map(x => x.delay_ms.p99);
    return atMost(median(delays), 0.4, `${spread(delays, 3)} ms`);
});
await check('ratio: memory of 20x20 at most 40 MB', async () => {
    const memory = of('20x20').report.map(x => x.server.rss_kib / 1024);
    return atMost(median(memory), 40, `${spread(memory, 1)} MB`);
});
for (const shape of shapes) {
    await check(`feedback live, ${shape}: at most 1.2 times without`, async () => {
        const [live, none] = [of(`${shape} feedback`), of(shape)];
        delivered(live);
        const ratio = live.cpu.map((cpu, round) => cpu / none.cpu[round]);
        return atMost(median(ratio), 1.2, `${spread(ratio)}: ${spread(live.cpu)} us, ${spread(none.cpu)} us without`);
    });
}
await check('packet splits of a real encoder, 20x20: ratio at most 1.6', async () => {
    const r = of('20x20 real');
    delivered(r);
    return atMost(median(r.ratio), 1.6, `${spread(r.ratio)}, ${spread(r.all.map(m => m.segments))} datagrams a send`);
});
await check('flat from 10 to 500 receivers: ratios within 15 %', async () => {
    const all = ['1to10', '1to100', '1to500'].map(name => { const r = of(name); delivered(r); return median(r.ratio); });
    return atMost(Math.max(...all) / Math.min(...all), 1.15, `10, 100, 500 receivers: ${all.map(x => x.toFixed(2)).join(', ')}`);
});

// ---- lines of their own ----

/// The most packets a second that a server bears, of calls that grow: 0.999 of them
/// delivered, and no picture that freezes.
async function capacity(people, measure) {
    let best = { rate: 0, said: 'nothing delivered' };
    for (const n of people) {
        const r = await measure(n);
        const said = `${Math.round(r.packets_per_second)} packets/s at ${n}x${n}, delivered ${r.delivered_ratio.toFixed(5)}, ${r.freezes} freezes, p99 ${r.delay_ms.p99.toFixed(1)} ms, server ${(r.server.cores * 100).toFixed(0)} % of its core, load ${(r.client.busy * 100).toFixed(0)} %`;
        const late = r.invalid.length && r.server.cores < 0.95;
        if (late || r.delivered_ratio < 0.999 || r.freezes) { best.next = late ? `${said}: ${r.invalid.join('; ')}` : said; break; }
        best = { rate: r.packets_per_second, said, report: r };
    }
    return best;
}
const ownCapacity = () => capacity([30, 34, 36, 38, 40, 42], n => withBridge(`saturation-${n}`, pid => load(`saturation-${n}`, pid, ['--shape', `${n}x${n}`, '--ramp', '50'], { invalid: true })));
let ours = null;
await check('saturation: at least 250,000 packets/s delivered 0.999', async () => {
    ours = await ownCapacity();
    if (ours.rate < 250_000) { throw new Error(`${ours.said}; then ${ours.next}`); }
    const limit = await roofline(ours.report);
    return `${ours.said}, ${(ours.report.server.cpu_us_per_packet / limit).toFixed(2)} times the paced roofline`;
});
await check('2 workers: CPU a packet at most 1.1 times 1 worker', async () => {
    const both = { 1: [], 2: [] }, shares = [];
    for (let round = 0; round < Math.min(rounds, 3); round++) {
        for (const workers of [1, 2]) {
            // Two CPUs are all there are: the load shares the second one.
            const r = await withBridge(`workers-${workers}`, async pid => {
                const report = await load(`workers-${workers}`, pid, ['--conferences', '4', '--shape', '10x10'], { invalid: true });
                if (workers === 2) { shares.push(await counter('viaduct_udp_datagrams_handed_over_total') / await counter('viaduct_udp_datagrams_received_total')); }
                return report;
            }, { workers, cpus: `${SERVER_CPU},${CLIENT_CPU}` });
            if (r.delivered_ratio < 0.999) { throw new Error(`delivered ${r.delivered_ratio} with ${workers}`); }
            both[workers].push(r.server.cpu_us_per_packet);
        }
    }
    const ratio = both[2].map((cpu, round) => cpu / both[1][round]);
    return atMost(median(ratio), 1.1, `${spread(ratio)}: ${spread(both[2])} us, ${spread(both[1])} us with 1; ${(median(shares) * 100).toFixed(1)} % handed over`);
});
await check('2 workers: no lock in the profile', async () => {
    if ((await run('perf', ['--version'])).status !== 0) { throw new Skip('no perf on this machine'); }
    const data = path.join(out, 'perf.data');
    return withBridge('profile', async pid => {
        const loading = load('profile', pid, ['--conferences', '4', '--shape', '10x10'], { invalid: true });
        await sleep(4000);
        const recorded = await run('perf', ['record', '-q', '-g', '-o', data, '-p', String(pid), '--', 'sleep', '3']);
        await loading;
        if (recorded.status !== 0) { throw new Skip(`perf cannot record: ${recorded.stderr.slice(-200)}`); }
        const shown = await run('perf', ['report', '-i', data, '--stdio', '--no-children', '-g', 'none', '--comm', 'worker-0,worker-1']);
        const locks = shown.stdout.split('\n').filter(l => /pthread_mutex|__lll_lock|futex|RawMutex|parking_lot|sys::sync::mutex/i.test(l)).map(l => l.trim()).filter(l => parseFloat(l) >= 0.5);
        if (locks.length) { throw new Error(locks.join(' | ')); }
        return 'none of half a percent or more';
    }, { workers: 2, cpus: `${SERVER_CPU},${CLIENT_CPU}` });
});
const crowd = ['--conferences', '100', '--shape', '1of10', '--ramp', '50', '--join-timeout', '10', '--height', '180'];
const kibEach = r => (r.server.rss_kib - r.server.rss_before_kib) / 1000;
await check('1,000 participants in 100 conferences join in 20 s', async () => {
    const r = await withBridge('thousand', async pid => {
        const before = await fetchInside('/metrics');
        const r = await load('thousand', pid, crowd, { invalid: true });
        fs.writeFileSync(path.join(out, 'thousand-metrics.txt'), before + await fetchInside('/metrics'));
        return r;
    });
    if (r.connected !== 1000 || r.silent) { throw new Error(`${r.connected} connected, ${r.silent} streams silent`); }
    // What a participant's memory is for: the same without video, and without a channel.
    const without = async (what, ...args) => kibEach(await withBridge(what, pid => load(what, pid, [...crowd, '--seconds', '3', '--last-n', '0', ...args], { invalid: true })));
    const [audio, bare] = [await without('no-video'), await without('no-channel', '--channel', 'none')];
    const each = kibEach(r);
    const said = `slowest first frame ${r.joins_ms.first_frame_max.toFixed(0)} ms, p99 delay ${r.delay_ms.p99.toFixed(2)} ms, ${each.toFixed(0)} KiB a participant with all caches (video ${(each - audio).toFixed(1)}, data channel ${(audio - bare).toFixed(1)}, ICE, DTLS, SRTP and audio ${bare.toFixed(1)}), ${r.packets_per_second.toFixed(0)} packets/s`;
    if (r.delay_ms.p99 >= 10) { throw new Error(said); }
    return atMost(each, 128, said);
});
await check('running calls while others join: p99 under 10 ms', async () => withBridge('storm', async pid => {
    const calls = load('storm-calls', pid, ['--conferences', '2', '--shape', '10x10', '--seconds', '24'], { invalid: true });
    await sleep(5000);
    await load('storm', pid, ['--conferences', '90', '--shape', '1of10', '--ramp', '45', '--height', '180', '--seconds', '1', '--warmup', '0'], { invalid: true });
    const r = await calls;
    return atMost(r.delay_ms.p99, 10, `p99 ${r.delay_ms.p99.toFixed(2)} ms, p99.9 ${r.delay_ms.p999.toFixed(2)} ms, ${r.freezes} freezes`);
}));
await check('a whole deployment, 100 in a room, 5 replaced a second', async () => {
    const deployment = new Deployment('load', 31_000);
    deployment.environment.PROGRAMS = programs;
    deployment.downAtExit();
    await deployment.up('--bridges', '2');
    const env = await deployment.env();
    const file = path.join(out, 'deployment.json');
    const ran = await run(loadtest, ['run', env.XMPP_WS.replace('ws://', 'xmpp+ws://'), '--domain', env.XMPP_DOMAIN, '--json', file, '--cpu', CLIENT_CPU,
        '--shape', '5of100', '--height', '180', '--ramp', '5', '--churn', '5', '--seconds', '30', '--join-timeout', '40']);
    const metrics = await (await fetch(`http://${env.FOCUS_HTTP}/metrics`)).text();
    await deployment.quickstart('down');
    if (!fs.existsSync(file)) { throw new Error(ran.stderr.slice(-400)); }
    const r = JSON.parse(fs.readFileSync(file));
    const moved = Number(/^jitsi_jicofo_participants_moved_total (\d+)/m.exec(metrics)[1]);
    const said = `${Math.round(r.packets_per_second)} packets/s, ${r.delivered_ratio.toFixed(6)} delivered, ${r.joined} joined, ${moved} moved to another bridge, first frame ${Math.round(r.joins_ms.first_frame)} ms, p99 ${Math.round(r.joins_ms.first_frame_p99)} ms, ${r.freezes} freezes`;
    if (r.invalid.length || r.failures.length || r.delivered_ratio < 0.999 || moved) { throw new Error([said, ...r.invalid, ...r.failures].join('; ')); }
    return said;
});
/// A jitsi-videobridge on the server's CPU for the time of `work`, which is given
/// what puts a load on it.
async function withJvb(work) {
    const { JVB_START: start, JVB_HTTP: http = '19080', JVB_WARM: warm = '60' } = process.env;
    if (!start || !place.name) { throw new Skip('JVB_START names no jitsi-videobridge (and network namespaces are needed: it ignores loopback)'); }
    const log = fs.openSync(path.join(out, 'jvb.log'), 'a');
    const child = spawn(path.resolve(start), [place.name, place.address], { stdio: ['ignore', log, log] });
    try {
        for (let tries = 0; (await run(...command([...place.server, 'curl', '-sf', `http://127.0.0.1:${http}/about/health`]))).status !== 0; tries++) {
            if (tries > 300 || child.exitCode !== null) { throw new Error(`it did not start: ${path.join(out, 'jvb.log')}`); }
            await sleep(200);
        }
        const put = (name, args) => load(name, child.pid, ['--channel', 'none', ...args], { target: `127.0.0.1:${http}`, invalid: true });
        await put('jvb-warm', ['--shape', '10x10', '--seconds', warm]);
        return await work(put);
    } finally {
        await end(child);
        fs.closeSync(log);
    }
}
await check('the roofline: within 5 % of the one to compare with', async () => {
    if (!process.env.ROOFLINE) { throw new Skip('ROOFLINE names no other tool'); }
    const common = ['--fanout', '50', '--size', '872', '--packets', '300000', '--runs', '1', '--send', 'mmsg', '--core', SERVER_CPU, '--peer-core', CLIENT_CPU, ...place.roofline];
    const measure = async tool => JSON.parse((await run(...command([...place.server, ...tool, ...common]))).stdout.trim().split('\n').at(-1)).ns_per_fwd;
    const ratios = [];
    for (let round = 0; round < 3 * rounds; round++) {
        const other = await measure([path.resolve(process.env.ROOFLINE)]);
        ratios.push(await measure([loadtest, 'roofline']) / other);
    }
    return atMost(Math.abs(median(ratios) - 1), 0.05, `${spread(ratios, 3)} times the other`);
});
await check('beside JVB: at least 8 times the packets a core', async () => withJvb(async put => {
    const figures = [];
    for (const shape of (process.env.JVB_SHAPES || '1to30,10x10').split(',')) {
        const [ratios, delays, memory] = [[], [], []];
        for (let round = 0; round < rounds; round++) {
            const theirs = await put(`jvb-${shape}`, ['--shape', shape]);
            const own = await withBridge(`beside-${shape}`, pid => load(`beside-${shape}`, pid, ['--shape', shape], { invalid: true }));
            ratios.push(theirs.server.cpu_us_per_packet / own.server.cpu_us_per_packet);
            delays.push(theirs.delay_ms.p99 / own.delay_ms.p99);
            memory.push(theirs.server.rss_kib / own.server.rss_kib);
        }
        figures.push(`${shape}: ${spread(ratios, 1)} times the CPU a packet, ${median(delays).toFixed(0)} times the p99 delay, ${median(memory).toFixed(0)} times the memory`);
    }
    const theirs = await capacity([8, 9, 10, 11, 12, 13, 14, 15, 16], n => put(`jvb-${n}x${n}`, ['--shape', `${n}x${n}`]));
    ours = ours ?? await ownCapacity();
    const said = `${(ours.rate / theirs.rate).toFixed(1)} times: ${Math.round(ours.rate)} packets/s on a core, theirs ${theirs.said} (then ${theirs.next}); ${figures.join('; ')}`;
    if (!(ours.rate >= 8 * theirs.rate)) { throw new Error(said); }
    return said;
}));
await check('one report, opened in a browser', async () => {
    const page = fs.readdirSync(out).filter(f => f.endsWith('.html')).at(0)
        ?? path.basename(await withBridge('page', async pid => { await load('page', pid, ['--shape', '10x10', '--roofline']); return fs.readdirSync(out).find(f => f.endsWith('page.html')); }));
    const { chromium } = await import(path.join(root, 'tests/browser/node_modules/playwright-core/index.mjs'));
    const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox'] });
    try {
        const shots = [];
        for (const colorScheme of ['light', 'dark']) {
            const tab = await browser.newPage({ viewport: { width: 1280, height: 1000 }, colorScheme });
            const faults = [], asked = [];
            tab.on('console', m => { if (m.type() === 'error') { faults.push(m.text()); } });
            tab.on('request', r => asked.push(r.url()));
            await tab.goto(`file://${path.join(out, page)}`);
            const plots = await tab.locator('svg').count();
            const shot = path.join(out, `report-${colorScheme}.png`);
            await tab.screenshot({ path: shot, fullPage: true });
            shots.push(shot);
            if (faults.length || plots < 3 || asked.length !== 1) { throw new Error(`${plots} plots, asked for ${asked.length} files, ${faults.join('; ')}`); }
        }
        return `look at ${shots.join(' and ')}`;
    } finally { await browser.close(); }
});
finish();
