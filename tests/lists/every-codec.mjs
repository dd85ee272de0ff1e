// The promises of every codec, both channels, all cores.
import fs from 'node:fs';
import path from 'node:path';
import { call, check, Deployment, figure, finish, heightsFollow, maxHeight, out, root, rss, run, Skip, sleep } from './harness.mjs';
import { fuzz } from './fuzz.mjs';

const small = ['--video', '640x360', '--fps', '15'];
const tiny = ['--video', '320x180', '--fps', '15'];
const codecs = ['VP8', 'VP9', 'AV1', 'H264'];

/// Codec names of the pictures that were seen in a call.
const seen = r => [...new Set(r.pairs.map(p => p.codec).filter(c => c?.startsWith('video')))].join(' ');

/// The data channel of each client's connection to the bridge, where it has one.
const dataChannels = r => r.clients.map(c => c.samples.at(-1).pcs.map(pc => pc.channel).find(Boolean));

/// Of each picture in a client's sample, how many frames were decoded so far.
const framesDecoded = sample => new Map(sample.remote.filter(v => v.kind === 'video').map(v => [v.source ?? v.from, v.framesDecoded ?? 0]));

/// How many pictures each client saw move between two moments of a call.
function moving(r, from, to) {
    return r.clients.map(client => {
        const first = new Map(), last = new Map();
        for (const sample of client.samples.filter(s => s.at >= from && s.at <= to)) {
            for (const [source, n] of framesDecoded(sample)) {
                if (!first.has(source)) { first.set(source, n); }
                last.set(source, n);
            }
        }
        return [...last].filter(([source, n]) => n > first.get(source) + 3).length;
    });
}

/// How many pictures each client saw move in each sample from then on.
function movingEach(r, from) {
    return r.clients.map(client => {
        const each = client.samples.filter(s => s.at >= from).map(framesDecoded);
        return each.slice(1).map((now, at) => [...now].filter(([source, n]) => n > (each[at].get(source) ?? 0) + 2).length);
    });
}

/// Every kind of call, on a deployment whose bridge has that many workers.
async function calls(workers) {
    const name = text => `${text}, ${workers} worker${workers > 1 ? 's' : ''}`;
    const deployment = new Deployment(`w${workers}`, 30_000 + 200 * workers);
    deployment.downAtExit();
    deployment.environment.BRIDGE_WORKERS = String(workers);
    await deployment.up();
    const env = await deployment.env();

    for (const codec of codecs) {
        await check(name(`3 clients ${codec}`), async () => {
            const r = await call(env, codec, ['--clients', '3', '--seconds', '25', '--codec', codec, ...small]);
            if (seen(r) !== `video/${codec}`) { throw new Error(`asked for ${codec}, saw ${seen(r)}`); }
            return figure(r);
        });
    }
    await check(name('3 clients, the library\'s own choice'), async () => {
        const r = await call(env, 'own', ['--clients', '3', '--seconds', '25', ...small]);
        return `${figure(r)}, ${seen(r)}`;
    });
    for (const codec of codecs) {
        await check(name(`heights 180 > 720 > 360 within 2 s, ${codec}`), () => heightsFollow(env, codec));
    }
    for (const channel of ['websocket', 'datachannel']) {
        await check(name(`bridge channel by ${channel}`), async () => {
            const r = await call(env, channel, ['--clients', '2', '--seconds', '25', '--codec', 'VP8', ...small, '--channel', channel, '--at', '12s:message:0:hello']);
            const sctp = dataChannels(r).filter(c => c?.messagesReceived > 0).length;
            if (sctp !== (channel === 'datachannel' ? 2 : 0)) { throw new Error(`${sctp} clients heard the bridge over SCTP`); }
            return figure(r);
        });
    }
    await check(name('screen share beside the camera'), async () => {
        const r = await call(env, 'share', ['--clients', '2', '--seconds', '40', ...small, '--at', '10s:share:0', '--at', '30s:unshare:0']);
        const during = moving(r, 18, 28), after = moving(r, 35, 40);
        if (during[1] !== 2 || after[1] !== 1) { throw new Error(`client 1 saw ${during[1]} pictures during, ${after[1]} after`); }
        return figure(r);
    });
    await check(name('2 senders, 3 receive only'), async () => figure(await call(env, 'recvonly', ['--clients', '2', '--recvonly', '3', '--seconds', '25', '--codec', 'VP8', ...tiny])));
    await check(name('audio only'), async () => figure(await call(env, 'audio', ['--clients', '3', '--seconds', '20', '--audio-only'])));
    await check(name('lastN 1 of 4 senders: exactly one picture each'), async () => {
        const r = await call(env, 'lastn', ['--clients', '4', '--seconds', '30', '--codec', 'VP8', ...tiny, '--interval', '1', '--at', `10s:constraints:${maxHeight(180, 1)}`], { judge: false });
        // All four speak, so now and then the one picture is another: a second that sees both is no fault.
        const limited = Math.max(...r.timeline.map(l => /^\s*([\d.]+)s EVENT .*constraints/.exec(l)).filter(Boolean).map(m => Number(m[1])));
        const pictures = movingEach(r, limited + 3);
        const wrong = pictures.filter(counts => counts.some(n => n < 1 || n > 2) || counts.filter(n => n === 1).length < counts.length * 0.7);
        if (wrong.length || pictures.some(counts => counts.length < 10)) { throw new Error(`pictures a second: ${pictures.map(counts => counts.join('')).join(' ')}`); }
        const deaf = r.pairs.filter(p => p.kind === 'audio' && p.verdict === 'FAIL').length;
        if (deaf) { throw new Error(`${deaf} pairs without sound`); }
        return `pictures a second: ${pictures.map(counts => counts.join('')).join(' ')}`;
    });
    await check(name('an older and a current client in one call'), async () => {
        const lib = path.join(deployment.environment.QUICKSTART_DIR, 'page/lib');
        const r = await call(env, 'older', ['--clients', '3', '--ljm2', '1', '--seconds', '30', '--codec', 'VP8', ...small],
            { env: { LJM2: path.join(lib, 'lib-jitsi-meet.min.js'), LJM_BEFORE: path.join(lib, 'jquery.min.js') } });
        return figure(r);
    });
    await check(name('end-to-end encryption switched on in the call'), async () => {
        const on = 'crypto.subtle.importKey("raw", new Uint8Array(16).fill(7), "AES-GCM", true, ["encrypt", "decrypt"])'
            + '.then(async key => { await H.S.conf.toggleE2EE(true); H.S.conf.setMediaEncryptionKey({ encryptionKey: key, index: 0 }); })';
        const r = await call(env, 'e2ee', ['--clients', '3', '--seconds', '45', '--codec', 'VP8', ...small, '--set', 'conference={"e2ee":{"externallyManagedKey":true}}',
            ...[0, 1, 2].flatMap(k => ['--at', `12s:eval:${k}:${on}`])]);
        const after = moving(r, 30, 45);
        if (after.some(n => n !== 2)) { throw new Error(`pictures after: ${after}`); }
        return figure(r);
    });
    return { deployment, env };
}

const { deployment, env } = await calls(2);

for (const [library, LJM] of [['npm\'s library', ''], ['the current library', process.env.LJM]]) {
    await check(`Firefox and Chromium see and hear, ${library}`, async () => {
        if (LJM === undefined) { throw new Skip('LJM names no current lib-jitsi-meet.min.js'); }
        const again = await run(path.join(root, 'deploy/quickstart'), ['up'], { env: { ...deployment.environment, LJM } });
        if (again.status !== 0) { throw new Error(again.stderr.slice(-600)); }
        const ran = await run('node', [path.join(root, 'tests/browser/drive.mjs'), '--page', env.PAGE_URL, '--room', `firefox${LJM ? 1 : 0}`, '--clients', '3', '--firefox', '1', '--seconds', '25',
            '--shots', path.join(out, `firefox-${LJM ? 'current' : 'npm'}`)]);
        if (ran.status !== 0) { throw new Error(ran.stdout + ran.stderr); }
        return 'all six pairs';
    });
}

/// A run of the load test on the deployment with two workers.
async function load(name, ...args) {
    const file = path.join(out, `${name}.json`);
    const ran = await run(path.join(deployment.environment.QUICKSTART_DIR, 'bin/viaduct-loadtest'), ['join', '--domain', env.XMPP_DOMAIN, '--muc', env.MUC_DOMAIN, '--ws', env.XMPP_WS,
        '--room', name, '--json', file, ...args]);
    fs.writeFileSync(file.replace('.json', '.txt'), ran.stdout + ran.stderr);
    if (ran.status !== 0) { throw new Error(ran.stdout.slice(-900) + ran.stderr.slice(-300)); }
    return JSON.parse(fs.readFileSync(file));
}
const stats = async () => (await fetch(`http://${env.BRIDGE_1_HTTP}/colibri/stats`)).json();

for (const codec of codecs) {
    await check(`synthetic participants, ${codec}, both channels`, async () => {
        const figures = [];
        for (const channel of ['websocket', 'datachannel']) {
            const r = await load(`${codec}${channel}`.toLowerCase(), '--participants', '6', '--senders', '3', '--codec', codec.toLowerCase(), '--channel', channel, '--share', '--mute', '--seconds', '20');
            figures.push(`${r.delivered} packets, ${r.lost} lost`);
        }
        return figures.join('; ');
    });
}
await check('a room of 60 on 2 workers, every pair verified', async () => {
    const r = await load('sixty', '--participants', '60', '--senders', '4', '--codec', 'vp8', '--height', '180', '--seconds', '30');
    if (r.lost !== 0 || r.reordered !== 0) { throw new Error(`${r.lost} lost, ${r.reordered} reordered`); }
    return `${Math.round(r.delivered / 30)} packets/s, lost ${r.lost}, reordered ${r.reordered}, delay p99 ${r.delay_ms.p99} ms`;
});
// In rooms of twenty: to one of a hundred, Prosody alone has to send two
// thousand stanzas a second for five who come and five who leave.
await check('100 participants, 5 joining and leaving a second, 10 minutes', async () => {
    const seconds = Number(process.env.CHURN_SECONDS || 600);
    const sizes = [];
    const sampler = setInterval(() => { try { sizes.push([Date.now(), rss(env.BRIDGE_1_PID)]); } catch { /* gone: the run fails */ } }, 1000);
    const began = Date.now();
    let runs;
    try {
        runs = await Promise.all([1, 2, 3, 4, 5].map(room => load(`churn${room}`, '--participants', '20', '--senders', '2', '--codec', 'vp8', '--height', '180', '--churn', '1/s', '--seconds', String(seconds))));
    } finally { clearInterval(sampler); }
    // After the first fifth all caches have their size.
    const mean = (a, b) => { const of = sizes.filter(([t]) => t >= began + a * seconds * 1000 && t < began + b * seconds * 1000).map(s => s[1]); return of.reduce((x, y) => x + y, 0) / of.length; };
    const early = mean(0.2, 0.4), late = mean(0.8, 1);
    await sleep(65_000);
    const left = await stats();
    if (left.participants !== 0 || left.conferences !== 0) { throw new Error(`left over: ${left.participants} participants, ${left.conferences} conferences`); }
    if (late > early * 1.05) { throw new Error(`RSS ${early.toFixed(1)} MB early, ${late.toFixed(1)} MB late`); }
    const total = key => runs.reduce((sum, r) => sum + r[key], 0);
    return `${total('joined')} joins, RSS ${early.toFixed(1)} MB early, ${late.toFixed(1)} MB late; ${total('delivered')} packets, ${total('lost')} lost; nothing left over`;
});

for (const workers of [1, 4]) { await calls(workers); }

await fuzz();
finish();
