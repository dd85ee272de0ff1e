// Opens the meeting page in several tabs of a headless Chromium and judges what
// each sees and hears of each other: the colour and the tone must be the
// other's, and the picture must move.
//
//   node drive.mjs --page http://localhost:8000 --room r --clients 2 --seconds 20
//       [--json FILE] [--shots DIR] [--no-switches] [--layers]
//
// Exit status: 0 all pairs good, 1 something failed, 64 wrong command line.
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const here = path.dirname(new URL(import.meta.url).pathname);
let args;
try {
    args = parseArgs({ options: {
        page: { type: 'string' }, room: { type: 'string', default: 'drive' }, clients: { type: 'string', default: '2' },
        seconds: { type: 'string', default: '20' }, json: { type: 'string' }, shots: { type: 'string' },
        'no-switches': { type: 'boolean', default: false }, layers: { type: 'boolean', default: false }
    } }).values;
    if (!args.page) { throw new Error('--page is missing'); }
} catch (e) {
    console.error(String(e.message));
    process.exit(64);
}
const clients = Number(args.clients), seconds = Number(args.seconds);

// Switches that keep a headless Chromium quiet on a machine without a desktop;
// only the loopback one changes what WebRTC does, and --no-switches omits it.
const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required',
        ...(args['no-switches'] ? [] : ['--allow-loopback-in-peer-connection'])]
});
const pages = [];
let failed = 0;
try {
    for (let k = 0; k < clients; k++) {
        const context = await browser.newContext({ viewport: { width: 900, height: 600 }, ignoreHTTPSErrors: true });
        const page = await context.newPage();
        page.on('pageerror', e => console.error(`client ${k}: ${e.message}`));
        await page.addInitScript({ path: path.join(here, 'media.js') });
        await page.goto(`${args.page}/?room=${args.room}&name=client${k}&client=${k}&join=1`);
        pages.push(page);
    }
    const ids = [];
    for (const [k, page] of pages.entries()) {
        await page.waitForFunction(() => document.body.dataset.joined, undefined, { timeout: 20_000 })
            .catch(async () => { throw new Error(`client ${k} never joined: ${await page.locator('#state').textContent()}`); });
        ids.push(await page.evaluate(() => document.body.dataset.joined));
    }
    // One sample a second; a pair is good in a second when picture and tone are right.
    const pairs = new Map();
    for (let a = 0; a < clients; a++) for (let b = 0; b < clients; b++) if (a !== b) pairs.set(`${a}<${b}`, { video: 0, audio: 0, heights: [], frames: -1, firstFrame: null, why: '' });
    const began = Date.now();
    let samples = 0;
    const heights = [];
    const asked = args.layers ? [[0.25, 180], [0.5, 720], [0.75, 360]] : [];
    while (Date.now() - began < seconds * 1000) {
        const at = (Date.now() - began) / (seconds * 1000);
        while (asked.length && at > asked[0][0]) {
            const [, height] = asked.shift();
            heights.push(height);
            for (const page of pages) await page.selectOption('#layer', String(height));
        }
        samples++;
        for (const [a, page] of pages.entries()) {
            const [videos, sounds] = await page.evaluate(() => [window.ViaductProbe.videos('#tiles video'), window.ViaductProbe.sounds('#sounds audio')]);
            for (let b = 0; b < clients; b++) {
                if (a === b) continue;
                const pair = pairs.get(`${a}<${b}`);
                const video = videos.find(v => v.owner === ids[b]);
                if (video && video.shows === b && video.frames > pair.frames) {
                    pair.video++;
                    pair.firstFrame ??= Date.now() - began;
                    if (pair.heights.at(-1) !== video.height) pair.heights.push(video.height);
                } else {
                    pair.why = !video ? 'no tile' : !video.width ? 'no picture' : video.shows !== b ? `shows ${video.shows}` : 'picture stands still';
                }
                if (video && video.frames !== undefined) pair.frames = video.frames;
                if (sounds.includes(b)) pair.audio++; else pair.why = `${pair.why} no tone ${b} in [${sounds}]`.trim();
            }
        }
        await new Promise(done => setTimeout(done, 1000));
    }
    if (args.shots) {
        fs.mkdirSync(args.shots, { recursive: true });
        for (const [k, page] of pages.entries()) await page.screenshot({ path: path.join(args.shots, `client${k}.png`) });
    }
    const rows = [...pairs].map(([pair, p]) => {
        const good = p.video >= samples * 0.6 && p.audio >= samples * 0.6 && (!args.layers || heights.every(h => p.heights.includes(h)));
        if (!good) failed++;
        return { pair, ok: good, video: +(p.video / samples).toFixed(2), audio: +(p.audio / samples).toFixed(2), heights: p.heights.join('>'), why: good ? '' : p.why };
    });
    console.table(rows);
    if (args.json) fs.writeFileSync(args.json, JSON.stringify({ pairs: rows, samples }, null, 1));
    if (rows.length === 0) failed++;
} catch (e) {
    console.error(e.message);
    failed++;
    for (const [k, page] of pages.entries()) console.error(`client ${k}: ${await page.locator('#state').textContent().catch(() => 'page gone')}`);
} finally {
    await browser.close();
}
process.exit(failed ? 1 : 0);
