// Every fuzz target for a while, without a finding. A list of its own, and a
// part of others.
import fs from 'node:fs';
import path from 'node:path';
import { check, finish, root, run, Skip } from './harness.mjs';

/// Runs all targets for FUZZ_SECONDS each, a crate after the other.
export async function fuzz() {
    const seconds = Number(process.env.FUZZ_SECONDS || 300);
    for (const crate of ['signalling', 'bridge']) {
        const targets = fs.readdirSync(path.join(root, crate, 'fuzz/fuzz_targets')).map(file => file.replace(/\.rs$/, ''));
        for (const target of targets) {
            await check(`fuzz ${crate} ${target}, ${seconds} s`, async () => {
                if ((await run('cargo', ['fuzz', '--version'])).status !== 0) { throw new Skip('cargo install cargo-fuzz'); }
                const ran = await run('cargo', ['fuzz', 'run', '--sanitizer', 'none', target, '--', `-max_total_time=${seconds}`, '-timeout=10'],
                    { cwd: path.join(root, crate), env: { ...process.env, RUSTC_BOOTSTRAP: '1' } });
                if (ran.status !== 0) { throw new Error(ran.stderr.slice(-600)); }
                return /Done (\d+) runs/.exec(ran.stderr)?.[0] ?? '';
            });
        }
    }
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
    await fuzz();
    finish();
}
