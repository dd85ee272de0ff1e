'use strict';
// Runs in every page before its own scripts: gives it a camera and a
// microphone that can be told apart, and reads what others' show.
// Client k sends a picture of colour k with a moving bar, and a tone of
// TONES[k] Hz. `window.ViaductProbe` is what drive.mjs asks.
(() => {
    const COLOURS = [[200, 30, 30], [30, 170, 30], [40, 60, 220], [210, 190, 20], [190, 40, 190], [30, 180, 190]];
    const TONES = [440, 660, 990, 1320, 1760, 2200];
    const k = Number(new URLSearchParams(location.search).get('client') || 0);

    function camera(width, height) {
        const canvas = Object.assign(document.createElement('canvas'), { width, height });
        const g = canvas.getContext('2d');
        let frame = 0;
        const draw = () => {
            const [r, gr, b] = COLOURS[k % COLOURS.length];
            g.fillStyle = `rgb(${r},${gr},${b})`;
            g.fillRect(0, 0, width, height);
            g.fillStyle = '#fff';
            g.fillRect((frame++ * 13) % width, height * 0.85, width / 8, height * 0.1);
        };
        draw();
        setInterval(draw, 66);
        return canvas.captureStream(15).getVideoTracks()[0];
    }

    function microphone() {
        const context = new AudioContext();
        const tone = new OscillatorNode(context, { frequency: TONES[k % TONES.length] });
        const gain = new GainNode(context, { gain: 0.2 });
        const out = context.createMediaStreamDestination();
        tone.connect(gain).connect(out);
        tone.start();
        return out.stream.getAudioTracks()[0];
    }

    navigator.mediaDevices.getUserMedia = async wanted => {
        const stream = new MediaStream();
        if (wanted.video) { stream.addTrack(camera(1280, 720)); }
        if (wanted.audio) { stream.addTrack(microphone()); }
        return stream;
    };
    navigator.mediaDevices.getDisplayMedia = async () => new MediaStream([camera(1280, 720)]);

    const ears = new Map();
    let listening = null;
    function hear(element) {
        if (!element.srcObject || !element.srcObject.getAudioTracks().length) { return null; }
        listening = listening || new AudioContext();
        const track = element.srcObject.getAudioTracks()[0];
        let ear = ears.get(track.id);
        if (!ear) {
            const source = listening.createMediaStreamSource(new MediaStream([track]));
            const analyser = new AnalyserNode(listening, { fftSize: 8192, smoothingTimeConstant: 0 });
            source.connect(analyser);
            ear = { analyser, bins: new Float32Array(analyser.frequencyBinCount) };
            ears.set(track.id, ear);
        }
        ear.analyser.getFloatFrequencyData(ear.bins);
        const level = hz => {
            const at = Math.round(hz * ear.analyser.fftSize / listening.sampleRate);
            return Math.max(...ear.bins.subarray(at - 2, at + 3));
        };
        const levels = TONES.map(level);
        const best = levels.indexOf(Math.max(...levels));
        const second = Math.max(...levels.filter((_, i) => i !== best));
        return levels[best] > -70 && levels[best] > second + 10 ? best : -1;
    }

    const small = Object.assign(document.createElement('canvas'), { width: 16, height: 9 });
    // Firefox's playback quality does not count the frames of a call.
    const shown = new WeakMap();
    function count(video) {
        if (shown.has(video)) { return; }
        shown.set(video, 0);
        const frame = () => { shown.set(video, shown.get(video) + 1); video.requestVideoFrameCallback(frame); };
        video.requestVideoFrameCallback(frame);
    }

    function see(video) {
        count(video);
        if (!video.videoWidth) { return null; }
        const g = small.getContext('2d', { willReadFrequently: true });
        g.drawImage(video, 0, 0, 16, 9);
        const { data } = g.getImageData(4, 2, 8, 4);
        const mean = [0, 1, 2].map(c => { let s = 0; for (let i = c; i < data.length; i += 4) { s += data[i]; } return s / (data.length / 4); });
        const distance = COLOURS.map(colour => Math.hypot(...colour.map((v, i) => v - mean[i])));
        const best = distance.indexOf(Math.min(...distance));
        return { shows: distance[best] < 70 ? best : -1, width: video.videoWidth, height: video.videoHeight,
            frames: shown.get(video) };
    }

    window.ViaductProbe = {
        videos: selector => [...document.querySelectorAll(selector)].map(v => ({ owner: v.closest('[data-endpoint]')?.dataset.endpoint ?? v.dataset.endpoint, ...see(v) })),
        sounds: selector => [...document.querySelectorAll(selector)].map(hear)
    };
})();
