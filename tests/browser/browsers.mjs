// The browsers that tests drive, each with pages of their own profile. A page
// has what both drivers have in common: goto, evaluate, screenshot, on.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import playwright from 'playwright-core';
import puppeteer from 'puppeteer-core';

/// A headless Chromium; `script` runs in every page before its own scripts.
/// Switches keep it quiet on a machine without a desktop; only the loopback one
/// changes what WebRTC does, and `switches: false` omits it.
export async function chromium({ script, switches = true }) {
    const browser = await playwright.chromium.launch({
        executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
        args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
            '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required',
            ...(switches ? ['--allow-loopback-in-peer-connection'] : [])]
    });
    return {
        async page() {
            const context = await browser.newContext({ viewport: { width: 900, height: 600 }, ignoreHTTPSErrors: true });
            const page = await context.newPage();
            await page.addInitScript({ path: script });
            return page;
        },
        close: () => browser.close()
    };
}

/// A headless Firefox over WebDriver BiDi, as Debian packages it. Its
/// preferences are what a user grants by hand (autoplay), and loopback addresses.
/// Its sound wants a device: a PulseAudio of its own has one that nobody hears.
export async function firefox({ script, switches = true }) {
    const home = fs.mkdtempSync(path.join(os.tmpdir(), 'firefox-'));
    const socket = path.join(home, 'sound');
    const pulse = spawn('pulseaudio', ['-n', '--exit-idle-time=-1', '-L', `module-native-protocol-unix socket=${socket} auth-anonymous=1`, '-L', 'module-null-sink'],
        { stdio: 'ignore', env: { ...process.env, HOME: home, XDG_RUNTIME_DIR: home } });
    const silent = new Promise((_, no) => pulse.on('error', e => no(new Error(`pulseaudio: ${e.message}`))));
    silent.catch(() => {});
    for (let tries = 0; tries < 50 && !fs.existsSync(socket); tries++) {
        await Promise.race([silent, new Promise(done => setTimeout(done, 100))]);
    }
    const browser = await puppeteer.launch({
        browser: 'firefox', executablePath: process.env.FIREFOX || '/usr/bin/firefox-esr', headless: true,
        acceptInsecureCerts: true, defaultViewport: { width: 900, height: 600 },
        env: { ...process.env, HOME: home, PULSE_SERVER: `unix:${socket}` },
        extraPrefsFirefox: {
            'media.autoplay.default': 0, 'media.autoplay.blocking_policy': 0,
            ...(switches ? { 'media.peerconnection.ice.loopback': true } : {})
        }
    });
    const source = fs.readFileSync(script, 'utf8');
    return {
        async page() {
            const page = await (await browser.createBrowserContext()).newPage();
            await page.evaluateOnNewDocument(source);
            return page;
        },
        async close() {
            await browser.close();
            pulse.kill();
            fs.rmSync(home, { recursive: true, force: true });
        }
    };
}
