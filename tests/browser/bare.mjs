// AV1 through a bridge between two bare RTCPeerConnections (bare.js): heights
// must follow the constraints, and the SRTP profile must be a GCM one.
//
//   node bare.mjs --ws ws://… --domain auth.… --user jvb --password … --brewery room@… [--codec AV1] [--mode L3T3_KEY]
import http from 'node:http';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const here = path.dirname(new URL(import.meta.url).pathname);
const text = { type: 'string' };
const { values: o } = parseArgs({ options: { ws: text, domain: text, user: text, password: text, brewery: text,
    codec: { type: 'string', default: 'AV1' }, mode: { type: 'string', default: 'L3T3_KEY' } } });

const server = http.createServer((request, response) => {
    const name = new URL(request.url, 'http://x').pathname.slice(1);
    if (!['bare.html', 'bare.js'].includes(name)) { response.writeHead(404).end(); return; }
    response.writeHead(200, { 'content-type': name.endsWith('js') ? 'text/javascript' : 'text/html' }).end(fs.readFileSync(path.join(here, name)));
}).listen(0, '127.0.0.1');
await new Promise(done => server.once('listening', done));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
        '--disable-sync', '--autoplay-policy=no-user-gesture-required', '--allow-loopback-in-peer-connection'] });
const faults = [];
try {
    const page = await browser.newPage();
    page.on('pageerror', e => faults.push(e.message));
    await page.addInitScript({ path: path.join(here, 'media.js') });
    await page.goto(`http://localhost:${server.address().port}/bare.html`);
    await page.evaluate(options => window.bare(options), { ...o });
    const seen = [];
    for (const wanted of [180, 720, 360]) {
        await page.evaluate(h => window.constrain(h), wanted);
        const began = Date.now();
        let now;
        do {
            await new Promise(done => setTimeout(done, 200));
            now = await page.evaluate(() => window.state());
        } while (now.height !== wanted && Date.now() - began < 10_000);
        seen.push(`${now.height} after ${Date.now() - began} ms`);
        if (now.height !== wanted) faults.push(`asked for ${wanted}, got ${now.height}`);
        await new Promise(done => setTimeout(done, 1500));
    }
    const end = await page.evaluate(() => window.state());
    const shows = (await page.evaluate(() => window.ViaductProbe.videos('video')))[0];
    if (!end.codec.endsWith(o.codec)) faults.push(`codec ${end.codec}`);
    if (!/GCM/.test(end.srtp)) faults.push(`SRTP profile ${end.srtp}`);
    if (shows.shows !== 0) faults.push(`picture shows ${shows.shows}`);
    console.log(JSON.stringify({ ...end, heights: seen, faults }));
} catch (e) {
    faults.push(e.message);
    console.error(e.message);
} finally {
    await browser.close();
    server.close();
}
process.exit(faults.length ? 1 : 0);
