// The page's own players: clip and result under one line that can be moved, and a turntable. One listener each for the whole
// document, for gradio draws the elements anew whenever their value changes.
window.portraitgen = (() => {
    const address = (file) => {
        if (Array.isArray(file)) return address(file[0]);
        return file ? (file.video || file).url || "" : "";
    };
    const escaped = (text) => text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
    const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
    const calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

    // Whether the visitor looks at what the latest job was begun with: its turntable belongs to nothing else.
    let stayed = true;
    const begin = () => {
        stayed = true;
        reveal("status");
    };
    const elsewhere = () => { stayed = false; };
    // Why the server did not take a job: gradio tells its listeners only that it failed.
    let full = false;
    const ask = window.fetch;
    window.fetch = async (...request) => {
        const answer = await ask(...request);
        if (/queue\/join/.test(request[0].url ?? request[0])) full = answer.status === 503;
        return answer;
    };
    const refused = (shown, words) => (shown === words.waiting ? (full ? words.full : words.other) : shown);
    const turned = (pair) => /\/turned-[^/]*$/.test(address(pair?.at(-1)));
    const both = (pair) => (pair ?? []).map(address).join(" ");
    let drawn = "";
    const same = (pair) => both(pair) === drawn; // told again after a job that changed neither

    const player = (pair, words) => {
        drawn = both(pair);
        const [after, before] = (pair ?? []).map(address).reverse();
        if (!after) return `<p class="empty">${words.empty}</p>`;
        const from = after.match(/-from-([\d.]+)\.\w+$/)?.[1] || 0; // where in the clip the result begins
        const name = `show-${Date.now()}`;
        const modes = before ? ["wipe", "side", "result"] : ["result"];
        const radios = modes.map((mode, number) => `<label><input type="radio" name="${name}" value="${mode}"${
            number ? "" : " checked"}><span>${words[mode]}</span></label>`).join("");
        const source = before ? `<video class="before" src="${escaped(before)}" muted loop playsinline preload="auto"
            aria-label="${words.clip}"></video>` : "";
        return `<figure class="player" data-mode="${modes[0]}" data-from="${from}">
            <div class="stage">${source}
                <video class="after" src="${escaped(after)}" loop playsinline preload="auto" aria-label="${words.shown}"></video>
                <span class="tag left">${words.clip}</span><span class="tag right">${words.shown}</span>
                <span class="line" aria-hidden="true"></span>
                <input class="cut" type="range" min="0" max="100" value="50" aria-label="${words.cut}">
            </div>
            <div class="controls">
                <button type="button" class="play" aria-pressed="false">${words.play}</button>
                <input class="seek" type="range" min="0" max="1" step="any" value="0" aria-label="${words.seek}">
                <span class="clock" aria-hidden="true">0:00</span>
                <button type="button" class="mute" aria-pressed="true">${words.sound}</button>
            </div>
            <div class="modes" role="radiogroup" aria-label="${words.modes}">${modes.length > 1 ? radios : ""}</div>
        </figure>`;
    };

    const turntable = (strip, count, words) => {
        const file = address(strip);
        if (!file || !stayed) return "";
        return `<figure class="turntable"><div class="views" role="img" aria-label="${words.views}"
            style="background-image: url('${escaped(encodeURI(decodeURI(file)))}'); background-size: ${count * 100}% 100%"></div>
            <input class="turn" type="range" min="0" max="${count - 1}" value="${(count - 1) / 2}" aria-label="${words.turn}"></figure>`;
    };

    let saved = "";
    const save = (file) => {
        const link = document.createElement("a");
        link.href = address(file);
        if (!address(file) || link.href === saved) return; // gradio tells of the last value of a job twice
        saved = link.href;
        link.download = link.href.split("/").pop();
        link.click();
    };

    const reveal = (id) => document.getElementById(id)?.scrollIntoView({ block: "nearest", behavior: calm() ? "auto" : "smooth" });

    const found = (values) => {
        // Files that gradio's own answers would bring an address along for.
        const { root, api_prefix } = window.gradio_config;
        const at = (value) => (value.path ? { ...value, url: `${root}${api_prefix}/file=${value.path}` } : value);
        return values.map((value) => (Array.isArray(value) ? value.map(at) : at(value)));
    };

    const moment = (id) => Math.round(10 * (document.querySelector(`#${id} video`)?.currentTime || 0)) / 10;

    // A number typed beyond the ends of a slider comes here before gradio corrects it.
    const within = (clip, start, seconds, ...rest) => {
        const held = (id, value) => {
            const { min, max } = document.querySelector(`#${id} input`);
            return Math.min(Math.max(value, min), max);
        };
        return [clip, held("start", start), held("seconds", seconds), ...rest];
    };

    const choose = (tabs, number) => document.querySelectorAll(`#${tabs} [role=tab]`)[number]?.click();

    const parts = (element) => {
        const root = element.closest?.(".player");
        return root && { root, after: root.querySelector(".after"), before: root.querySelector(".before") };
    };
    const follow = ({ root, after, before }) => {
        const time = Number(root.dataset.from) + after.currentTime;
        if (before && Math.abs(before.currentTime - time) > 0.07) before.currentTime = time;
    };
    const tick = (own) => {
        if (!own.root.isConnected || own.after.paused) return;
        follow(own);
        shown(own);
        requestAnimationFrame(() => tick(own));
    };
    const shown = ({ root, after }) => {
        root.querySelector(".seek").value = after.duration ? after.currentTime / after.duration : 0;
        root.querySelector(".clock").textContent = clock(after.currentTime);
    };

    // What a screen reader is told of the messages: every stage once, not every percent of it. Errors are alerts and speak for themselves.
    const speak = () => {
        const told = document.createElement("p");
        told.id = "spoken";
        told.className = "unseen";
        told.setAttribute("role", "status");
        document.body.append(told);
        const latest = {};
        new MutationObserver(() => {
            for (const id of ["about", "status"]) {
                const line = document.querySelector(`#${id} p:not(.bad)`)?.textContent.replace(/: \d+%$/, "") ?? "";
                if (line && line !== latest[id]) told.textContent = line;
                latest[id] = line;
            }
        }).observe(document.body, { childList: true, subtree: true, characterData: true });
    };
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", speak);
    else speak();

    document.addEventListener("input", ({ target }) => {
        if (target.matches?.(".turn")) {
            target.previousElementSibling.style.backgroundPositionX = `${(100 * target.value) / target.max}%`;
        }
        const own = parts(target);
        if (!own) return;
        if (target.matches(".cut")) own.root.style.setProperty("--cut", `${target.value}%`);
        if (target.matches(".modes input")) own.root.dataset.mode = target.value;
        if (target.matches(".seek") && own.after.duration) {
            own.after.currentTime = target.value * own.after.duration;
            follow(own);
        }
    });
    for (const kind of ["change", "drop"]) {
        // Gradio refuses such a file without a word of what to do.
        document.addEventListener(kind, ({ target, dataTransfer }) => {
            if (!target.closest?.("#clip")) return;
            const files = [...(dataTransfer?.files ?? target.files ?? [])];
            if (files.some((file) => file.size > window.gradio_config.max_file_size)) document.getElementById("too-large").click();
        }, true);
    }
    document.addEventListener("click", ({ target }) => {
        const own = parts(target);
        if (!own) return;
        if (target.matches(".play")) own.after.paused ? own.after.play() : own.after.pause();
        if (target.matches(".mute")) {
            own.after.muted = !own.after.muted;
            target.setAttribute("aria-pressed", String(!own.after.muted));
        }
    });
    for (const kind of ["play", "pause", "seeked", "loadedmetadata"]) {
        // Media events do not bubble, they can only be caught on the way down.
        document.addEventListener(kind, ({ target }) => {
            const own = parts(target);
            if (!own) return;
            if (kind === "loadedmetadata" && own.before?.videoWidth && own.after.videoWidth) {
                const shape = (video) => video.videoWidth / video.videoHeight;
                if (Math.abs(shape(own.before) / shape(own.after) - 1) > 0.02 && own.root.dataset.mode === "wipe") {
                    own.root.querySelector("input[value=wipe]").parentElement.remove();
                    own.root.querySelector("input[value=side]").click();
                }
            }
            if (target !== own.after) return;
            if (kind === "play" || kind === "pause") {
                own.root.querySelector(".play").setAttribute("aria-pressed", String(kind === "play"));
                if (own.before) kind === "play" ? own.before.play() : own.before.pause();
                tick(own);
            }
            follow(own);
            shown(own);
        }, true);
    }
    return { begin, refused, elsewhere, turned, same, player, turntable, save, reveal, found, moment, within, choose };
})();
