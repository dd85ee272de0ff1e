// What every acceptance list needs: lines with a verdict, programs that are
// run and read, a deployment by deploy/quickstart.
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

export const root = path.resolve(path.dirname(new URL(import.meta.url).pathname), '../..');
export const out = process.env.OUT ? path.resolve(process.env.OUT) : fs.mkdtempSync(path.join(os.tmpdir(), 'acceptance-'));
fs.mkdirSync(out, { recursive: true });

/// Words of the lines to run; a number keeps the comma of its thousands.
export const only = (process.env.ONLY || '').split(/,(?!000\b)/).filter(Boolean);
const results = { PASS: 0, FAIL: 0, SKIP: 0 };

function line(verdict, name, figure, seconds) {
    results[verdict]++;
    console.log(`${verdict}  ${name.padEnd(44)} ${figure}${seconds === undefined ? '' : `  (${seconds} s)`}`);
}

/// Runs one promise. `promise` returns its figure, throws `Skip` or any error.
export class Skip extends Error {}
export async function check(name, promise) {
    if (only.length && !only.some(word => name.includes(word))) { return; }
    const began = Date.now();
    const seconds = () => Math.round((Date.now() - began) / 1000);
    try {
        line('PASS', name, await promise() ?? '', seconds());
    } catch (e) {
        if (e instanceof Skip) { line('SKIP', name, e.message); } else { line('FAIL', name, String(e.message).replace(/\s*\n\s*/g, ' | ').slice(0, 600), seconds()); }
    }
}

export function finish() {
    console.log(`\n${results.PASS} passed, ${results.FAIL} failed, ${results.SKIP} skipped; details in ${out}`);
    process.exit(results.FAIL ? 1 : 0);
}

/// Runs a program to its end; resolves to { status, stdout, stderr }.
export function run(command, args, options = {}) {
    return new Promise((done, no) => {
        const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
        let stdout = '', stderr = '';
        child.stdout.on('data', d => { stdout += d; });
        child.stderr.on('data', d => { stderr += d; });
        child.on('error', no);
        child.on('close', status => done({ status, stdout, stderr }));
    });
}

export const sleep = ms => new Promise(done => setTimeout(done, ms));
export const median = numbers => [...numbers].sort((a, b) => a - b)[Math.floor((numbers.length - 1) / 2)];
export const rss = pid => Math.round(Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024);

/// deploy/quickstart in a folder and on ports of its own.
export class Deployment {
    constructor(name, ports = 30_000) {
        this.environment = { ...process.env, LJM: '', QUICKSTART_DIR: path.join(os.tmpdir(), `acceptance-${process.pid}-${name}`) };
        ['PAGE_PORT', 'C2S_PORT', 'XMPP_HTTP_PORT', 'COMPONENT_PORT', 'FOCUS_PORT'].forEach((v, i) => { this.environment[v] = String(ports + i); });
        ['BRIDGE_UDP_PORT', 'BRIDGE_HTTP_PORT', 'BRIDGE_WS_PORT'].forEach((v, i) => { this.environment[v] = String(ports + 10 * (i + 1)); });
    }
    quickstart(...args) { return run(path.join(root, 'deploy/quickstart'), args, { env: this.environment }); }
    async up(...args) {
        const began = Date.now();
        const up = await this.quickstart('up', ...args);
        if (up.status !== 0) { throw new Error(`quickstart up: ${up.stdout.slice(-300)} ${up.stderr.slice(-600)}`); }
        return (Date.now() - began) / 1000;
    }
    async env() {
        const { stdout } = await this.quickstart('env');
        return Object.fromEntries(stdout.split('\n').filter(l => l.includes('=')).map(l => [l.slice(0, l.indexOf('=')), l.slice(l.indexOf('=') + 1).replace(/^'|'$/g, '')]));
    }
    downAtExit() {
        const down = () => spawnSync(path.join(root, 'deploy/quickstart'), ['down'], { env: this.environment });
        process.on('exit', () => {
            const logs = path.join(this.environment.QUICKSTART_DIR, 'log');
            if (fs.existsSync(logs)) { fs.cpSync(logs, path.join(out, `log-${path.basename(this.environment.QUICKSTART_DIR)}`), { recursive: true }); }
            down();
            fs.rmSync(this.environment.QUICKSTART_DIR, { recursive: true, force: true });
        });
        for (const signal of ['SIGINT', 'SIGTERM']) { process.on(signal, () => process.exit(1)); }
    }
}

const tool = path.resolve(process.env.CALL || path.join(root, '../shared/tools/call'));
let serial = 0;

/// A call of real clients by the call tool; resolves to its JSON.
export async function call(env, name, args, { judge = true, env: more = {} } = {}) {
    if (!process.env.LJM) { throw new Skip('LJM names no current lib-jitsi-meet.min.js'); }
    if (!fs.existsSync(path.join(tool, 'call.mjs'))) { throw new Skip(`no call tool at ${tool} (CALL=DIR)`); }
    const file = path.join(out, `${String(++serial).padStart(2, '0')}-${name}.json`);
    const ran = await run('node', [path.join(tool, 'call.mjs'), '--ws', env.XMPP_WS, '--domain', env.XMPP_DOMAIN, '--muc', env.MUC_DOMAIN,
        '--room', `${name.replace(/[^a-z0-9]/g, '')}${serial}`, '--json', file, ...args], {
        env: { ...process.env, ...more, PLAYWRIGHT_CORE: path.join(root, 'tests/browser/node_modules/playwright-core'),
            CHROMIUM_ARGS: '--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync' } });
    fs.writeFileSync(file.replace('.json', '.txt'), ran.stdout + ran.stderr);
    if (!fs.existsSync(file)) { throw new Error(`the call tool gave no result: ${ran.stderr.slice(-400)}`); }
    const result = JSON.parse(fs.readFileSync(file));
    if (judge && ran.status !== 0) {
        const bad = result.pairs.filter(p => p.verdict === 'FAIL').slice(0, 4).map(p => `c${p.a}<-c${p.b} ${p.kind}: ${p.why}`);
        const unmet = result.expects.filter(e => !e.ok).map(e => e.expr);
        throw new Error(`${JSON.stringify(result.summary)} ${bad.join('; ')} ${unmet.join('; ')}`);
    }
    return result;
}

/// The figure of an ordinary call.
export const figure = r => `${r.summary.pairsOk}/${r.summary.pairs} pairs ok, first frame <= ${r.summary.firstFrameMax} s, longest hole ${r.summary.gapMax} s`;

/// Two clients of one codec ask for 180, 720 and 360 lines in turn, and both
/// must see each height within 2 s.
export async function heightsFollow(env, codec, ...more) {
    const steps = [[12, 180], [20, 720], [28, 360]];
    const r = await call(env, `layers${codec.toLowerCase()}`, ['--clients', '2', '--seconds', '36', '--codec', codec, '--video', '1280x720', '--fps', '15', '--interval', '0.25', '--want', '720',
        ...steps.flatMap(([at, h]) => ['--at', `${at}s:constraints:${maxHeight(h)}`]), ...more]);
    const events = r.timeline.map(l => /^\s*([\d.]+)s EVENT .*constraints/.exec(l)).filter(Boolean).map(m => Number(m[1]));
    const delays = [];
    for (const client of r.clients) {
        for (const [i, [, height]] of steps.entries()) {
            const hit = client.samples.find(s => s.at >= events[i] && s.remote.some(v => v.kind === 'video' && v.frameHeight === height));
            if (!hit || hit.at > (events[i + 1] ?? Infinity)) { throw new Error(`client ${client.id} never saw ${height}`); }
            delays.push(+(hit.at - events[i]).toFixed(2));
        }
    }
    const worst = Math.max(...delays);
    if (worst > 2) { throw new Error(`slowest ${worst} s: ${delays}`); }
    return `slowest ${worst} s; ${figure(r)}`;
}

/// ReceiverVideoConstraints: all sources, or the last `lastN`, up to a height.
export const maxHeight = (height, lastN = -1) => JSON.stringify({ lastN, defaultConstraints: { maxHeight: height } });
