// The promises of the first call.
import fs from 'node:fs';
import path from 'node:path';
import { call, check, Deployment, figure, finish, heightsFollow, median, out, root, rss, run, Skip, sleep } from './harness.mjs';

const one = new Deployment('one', 30_000);
one.downAtExit();
let env;

const small = ['--video', '640x360', '--fps', '15'];

await check('quickstart up', async () => {
    const seconds = await one.up();
    const again = await one.up();
    if (again > 5) { throw new Error(`up while up took ${again.toFixed(1)} s`); }
    return `${seconds.toFixed(1)} s, build included; again ${again.toFixed(1)} s`;
});
env = await one.env().catch(() => ({}));
if (!env.PAGE_URL) { await one.up(); env = await one.env(); }

await check('two tabs of the page see and hear each other', async () => {
    const shots = path.join(out, 'page');
    const ran = await run('node', [path.join(root, 'tests/browser/drive.mjs'), '--page', env.PAGE_URL, '--room', 'tabs', '--seconds', '20', '--shots', shots, '--layers']);
    if (ran.status !== 0) { throw new Error(ran.stdout + ran.stderr); }
    return `library from npm, heights follow the picker; screenshots in ${shots}`;
});

await check('page in a namespace, no special switches', async () => {
    if (process.getuid() !== 0) { throw new Skip('making a namespace needs root'); }
    const ran = await run(path.join(root, 'tests/lists/in-namespace'), [path.join(out, 'namespace'), path.join(one.environment.QUICKSTART_DIR, 'page/lib')],
        { env: { ...process.env, LJM: '', PROGRAMS: path.join(one.environment.QUICKSTART_DIR, 'bin') } });
    if (ran.status !== 0) { throw new Error(ran.stdout.slice(-600) + ran.stderr.slice(-600)); }
    return 'media by the machine\'s own address';
});

await check('quickstart check', async () => {
    const ran = await one.quickstart('check');
    if (ran.status !== 0) { throw new Error(ran.stdout + ran.stderr); }
    return 'three synthetic participants';
});

await check('AV1 between bare peer connections, GCM', async () => {
    const secrets = fs.readFileSync(path.join(env.CONFIG_DIR, 'quickstart.env'), 'utf8');
    const ran = await run('node', [path.join(root, 'tests/browser/bare.mjs'), '--ws', env.XMPP_WS, '--domain', env.AUTH_DOMAIN, '--user', 'jvb',
        '--password', /JVB_PASSWORD=(\S+)/.exec(secrets)[1], '--brewery', `jvbbrewery@internal.${env.AUTH_DOMAIN}`]);
    if (ran.status !== 0) { throw new Error(ran.stdout + ran.stderr); }
    const r = JSON.parse(ran.stdout.trim().split('\n').at(-1));
    return `${r.codec} ${r.mode}, ${r.srtp}; ${r.heights.join(', ')}`;
});

await check('3 clients 60 s VP8', async () => figure(await call(env, 'vp8', ['--clients', '3', '--seconds', '60', '--codec', 'VP8', ...small])));
await check('3 clients AV1', async () => figure(await call(env, 'av1', ['--clients', '3', '--seconds', '30', '--codec', 'AV1', ...small])));
await check('the library\'s own choice of codec', async () => {
    const r = await call(env, 'default', ['--clients', '3', '--seconds', '30', ...small]);
    return `${figure(r)}, ${[...new Set(r.pairs.map(p => p.codec).filter(c => c?.startsWith('video')))].join(' ')}`;
});
await check('late join and leave', async () => figure(await call(env, 'late', ['--clients', '2', '--seconds', '45', '--codec', 'VP8', ...small, '--at', '12s:join', '--at', '32s:leave:1'])));
await check('mute and unmute', async () => {
    const r = await call(env, 'mute', ['--clients', '2', '--seconds', '50', '--codec', 'VP8', ...small,
        '--at', '12s:mute-video:0', '--at', '14s:mute-audio:1', '--at', '26s:unmute-video:0', '--at', '28s:unmute-audio:1']);
    if (r.summary.leaks) { throw new Error(`${r.summary.leaks} pairs with video after its sender muted`); }
    return figure(r);
});
await check('bridge channel lost', async () => figure(await call(env, 'dropbridge', ['--clients', '2', '--seconds', '35', '--codec', 'VP8', ...small, '--at', '12s:drop-bridge:0'])));
await check('XMPP socket lost', async () => figure(await call(env, 'dropxmpp', ['--clients', '2', '--seconds', '35', '--codec', 'VP8', ...small, '--at', '12s:drop-xmpp:0'])));
await check('peer to peer, a third joins and leaves', async () => figure(await call(env, 'p2p', ['--clients', '2', '--p2p', '--seconds', '75', '--codec', 'VP8', ...small, '--at', '20s:join', '--at', '50s:leave:2'])));
for (const codec of ['VP8', 'AV1']) {
    await check(`heights follow 180 > 720 > 360 within 2 s, ${codec}`, () => heightsFollow(env, codec));
}
await check('median of 10 warm joins to first frame <= 1.4 s', async () => {
    const joins = Array.from({ length: 11 }, (_, i) => ['--at', `${8 + 7 * i}s:join:recvonly`, '--at', `${13 + 7 * i}s:leave:${i + 1}`]).flat();
    const r = await call(env, 'joins', ['--clients', '1', '--seconds', '90', '--codec', 'VP8', ...small, '--interval', '0.5', '--settle', '2', ...joins], { judge: false });
    const frames = r.pairs.filter(p => p.kind === 'video' && p.a > 1 && typeof p.firstFrame === 'number').map(p => p.firstFrame);
    if (frames.length < 10) { throw new Error(`only ${frames.length} of 10 joins saw a picture`); }
    const m = median(frames);
    if (m > 1.4) { throw new Error(`median ${m} s of ${frames}`); }
    return `median ${m} s, all ${[...frames].sort((a, b) => a - b).join(' ')}`;
});

await check('10 participants, 2 senders, 60 s: nothing lost', async () => {
    const file = path.join(out, 'loadtest.json');
    const ran = await run(path.join(one.environment.QUICKSTART_DIR, 'bin/viaduct-loadtest'), ['join', '--domain', env.XMPP_DOMAIN, '--muc', env.MUC_DOMAIN, '--ws', env.XMPP_WS,
        '--room', 'ten', '--participants', '10', '--senders', '2', '--codec', 'vp8', '--seconds', '60', '--json', file]);
    if (ran.status !== 0) { throw new Error(ran.stdout + ran.stderr); }
    const r = JSON.parse(fs.readFileSync(file));
    if (r.lost !== 0) { throw new Error(`${r.lost} lost`); }
    const delay = r.delay_ms;
    return `${Math.round(r.delivered / 60)} packets/s delivered, lost ${r.lost}, reordered ${r.reordered}, delay p50 ${delay.p50} p99 ${delay.p99} ms, bridge RSS ${rss(env.BRIDGE_1_PID)} MB`;
});

const two = new Deployment('two', 30_100);
two.downAtExit();
await check('two bridges: two rooms land on different ones', async () => {
    await two.up('--bridges', '2');
    const e = await two.env();
    const rooms = ['--clients', '2', '--seconds', '20', '--codec', 'VP8', '--video', '320x180'];
    const where = async () => Promise.all([1, 2].map(async n => (await (await fetch(`http://${e[`BRIDGE_${n}_HTTP`]}/colibri/stats`)).json()).participants));
    const calls = [call(e, 'rooma', rooms), sleep(6000).then(() => call(e, 'roomb', rooms))];
    await sleep(18_000);
    const spread = await where();
    await Promise.all(calls);
    if (spread.join() !== '2,2') { throw new Error(`participants on the bridges: ${spread}`); }
    return `participants on the bridges: ${spread}`;
});
await check('kill -9 of a bridge: heard again within 30 s', async () => {
    const e = await two.env();
    const victim = { pid: null };
    const calling = call(e, 'killed', ['--clients', '3', '--seconds', '60', '--codec', 'VP8', '--video', '320x180', '--max-gap', '30', '--min-ratio', '0.3']);
    for (let i = 0; i < 20 && !victim.pid; i++) {
        await sleep(1000);
        for (const n of [1, 2]) {
            const stats = await (await fetch(`http://${e[`BRIDGE_${n}_HTTP`]}/colibri/stats`)).json().catch(() => ({}));
            if (stats.participants === 3) { victim.pid = Number(e[`BRIDGE_${n}_PID`]); victim.n = n; }
        }
    }
    await sleep(8000);
    if (victim.pid) { process.kill(victim.pid, 'SIGKILL'); }
    const r = await calling;
    await two.quickstart('restart', `bridge-${victim.n}`);
    if (!victim.pid) { throw new Error('no bridge had the three participants'); }
    return `longest hole ${r.summary.gapMax} s, no reload`;
});
finish();
