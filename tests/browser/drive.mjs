// Opens the meeting page in several tabs of a headless Chromium, and of a
// Firefox for the clients that --firefox names, and judges what each sees and
// hears of each other: the colour and the tone must be the other's, and the
// picture must move.
//
//   node drive.mjs --page http://localhost:8000 --room r --clients 2 --seconds 20
//       [--firefox 1,2] [--json FILE] [--shots DIR] [--no-switches] [--layers]
//
// Exit status: 0 all pairs good, 1 something failed, 64 wrong command line.
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import * as browsers from './browsers.mjs';

const here = path.dirname(new URL(import.meta.url).pathname);
let args;
try {
    args = parseArgs({ options: {
        page: { type: 'string' }, room: { type: 'string', default: 'drive' }, clients: { type: 'string', default: '2' },
        seconds: { type: 'string', default: '20' }, json: { type: 'string' }, shots: { type: 'string' },
        'no-switches': { type: 'boolean', default: false }, layers: { type: 'boolean', default: false },
        firefox: { type: 'string', default: '' }
    } }).values;
    if (!args.page) { throw new Error('--page is missing'); }
} catch (e) {
    console.error(String(e.message));
    process.exit(64);
}
const clients = Number(args.clients), seconds = Number(args.seconds);

const inFirefox = new Set(args.firefox.split(',').filter(Boolean).map(Number));
const script = path.join(here, 'media.js');
const opened = {};
const browserOf = async k => {
    const kind = inFirefox.has(k) ? 'firefox' : 'chromium';
    return opened[kind] ??= await browsers[kind]({ script, switches: !args['no-switches'] });
};
const state = page => page.evaluate(() => document.getElementById('state').textContent);
const pick = height => {
    const picker = document.getElementById('layer');
    picker.value = height;
    picker.dispatchEvent(new Event('change'));
};
const pages = [];
let failed = 0;
try {
    for (let k = 0; k < clients; k++) {
        const page = await (await browserOf(k)).page();
        page.on('pageerror', e => console.error(`client ${k}: ${e.message}`));
        await page.goto(`${args.page}/?room=${args.room}&name=client${k}&client=${k}&join=1`);
        pages.push(page);
    }
    const ids = [];
    for (const [k, page] of pages.entries()) {
        const joined = () => page.evaluate(() => document.body.dataset.joined);
        const due = Date.now() + 20_000;
        while (!await joined()) {
            if (Date.now() > due) { throw new Error(`client ${k} never joined: ${await state(page)}`); }
            await new Promise(done => setTimeout(done, 100));
        }
        ids.push(await joined());
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
            for (const page of pages) await page.evaluate(pick, String(height));
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
    for (const [k, page] of pages.entries()) console.error(`client ${k}: ${await state(page).catch(() => 'page gone')}`);
} finally {
    for (const browser of Object.values(opened)) await browser.close();
}
process.exit(failed ? 1 : 0);
