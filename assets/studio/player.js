// The player: a clip, and the waveform of its sound under it. The playhead is read from the video's own clock.
(() => {
  const { t, h, icon, button, clock, kept, keep } = studio;

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /**
   * A player in `root`. Returns {show(clip, start), video, range(), trimming(on), stop()}.
   * What the sound looks like is fetched from /media/clips/ID/peaks.
   */
  studio.makePlayer = function makePlayer(root, { compact = false } = {}) {
    const video = h("video", { playsinline: true, preload: "auto", "aria-label": t("clip") });
    video.loop = kept("loop", true);
    video.volume = kept("volume", 1);
    const canvas = h("canvas", { "aria-hidden": "true" });
    const wave = h("div.wave", { role: "slider", tabindex: "0", "aria-label": t("position"), "aria-valuemin": "0" }, canvas);
    const play = button("play", t("play"), () => toggle(), { quiet: true, extra: "play" });
    const time = h("span.time", {}, "0:00.00 / 0:00.00");
    const loop = button("loop", t("loop"), () => { video.loop = !video.loop; keep("loop", video.loop); pressed(); }, { quiet: true });
    const mute = button("sound", t("mute"), () => { video.muted = !video.muted; pressed(); }, { quiet: true });
    const full = button("full", t("full_screen"), () => screen.requestFullscreen?.(), { quiet: true });
    const badges = h("div.badges", { role: "group", "aria-label": t("checks") });
    const screen = h("div.screen", {}, video);
    const bar = h("div.playbar", {}, play, time, h("span.spring"), badges, loop, mute, full);
    root.append(screen, wave, ...(compact ? [] : [bar]));
    let clip = null, sound = null, cut = null, shown = -1, alive = true, dirty = true;

    const length = () => clip?.seconds || video.duration || 0;
    const clamp = (seconds) => Math.min(Math.max(seconds, 0), Math.max(0, length() - 0.001));
    function seek(seconds) {
      const at = clamp(seconds);
      // The middle of the frame that is shown at that instant: decoders may round a frame's very edge either way.
      video.currentTime = clip?.fps ? Math.min((Math.floor(at * clip.fps + 1e-6) + 0.5) / clip.fps, length()) : at;
      dirty = true;
    }
    function toggle() { if (video.paused) video.play().catch((error) => console.warn(error)); else video.pause(); }
    function pressed() {
      loop.setAttribute("aria-pressed", String(video.loop));
      mute.setAttribute("aria-pressed", String(video.muted));
      mute.replaceChildren(icon(video.muted ? "mute" : "sound"));
      play.replaceChildren(icon(video.paused ? "play" : "pause"));
      play.setAttribute("aria-label", t(video.paused ? "play" : "pause"));
      play.title = t(video.paused ? "play" : "pause");
    }
    for (const name of ["play", "pause", "volumechange"]) video.addEventListener(name, pressed);
    video.addEventListener("click", toggle);

    // ---- drawing

    function drawWave() {
      const ratio = devicePixelRatio || 1, width = wave.clientWidth, height = wave.clientHeight;
      if (!width || !height) return;
      if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
      }
      const g = canvas.getContext("2d");
      g.setTransform(ratio, 0, 0, ratio, 0, 0);
      g.clearRect(0, 0, width, height);
      const total = length() || 1, head = (video.currentTime / total) * width, mid = height / 2;
      const peaks = sound?.peaks || [];
      const loudest = peaks.reduce((most, [low, high]) => Math.max(most, -low, high), 0);
      const zoom = loudest > 0.02 ? Math.min(4, 0.94 / loudest) : 1; // a quiet sound is still seen; the badge tells its level
      const bars = Math.max(1, Math.floor(width / 3));
      const waveColour = css("--wave"), playedColour = css("--wave-played");
      const levels = sound?.loudness || [];
      if (levels.length > 1) { // short-term level, -60 dB at the bottom to 0 dB at the top
        const at = (i) => [((i + 0.5) / levels.length) * width, height - Math.max(0, (levels[i] + 60) / 60) * (height - 4)];
        g.beginPath();
        g.moveTo(0, height);
        g.lineTo(0, at(0)[1]);
        for (let i = 0; i + 1 < levels.length; i++) { // through the middles, so that it bends softly
          const [x, y] = at(i), [nextX, nextY] = at(i + 1);
          g.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
        }
        g.lineTo(width, at(levels.length - 1)[1]);
        g.lineTo(width, height);
        g.globalAlpha = 0.16;
        g.fillStyle = waveColour;
        g.fill();
        g.globalAlpha = 1;
      }
      for (let i = 0; i < bars; i++) {
        const from = Math.floor((i * peaks.length) / bars), to = Math.max(from + 1, Math.floor(((i + 1) * peaks.length) / bars));
        let low = 0, high = 0;
        for (let j = from; j < to && j < peaks.length; j++) { low = Math.min(low, peaks[j][0]); high = Math.max(high, peaks[j][1]); }
        const top = mid - high * zoom * (mid - 3), bottom = mid - low * zoom * (mid - 3), x = i * 3;
        g.fillStyle = x < head ? playedColour : waveColour;
        g.fillRect(x, Math.min(top, mid - 0.75), 2, Math.max(1.5, bottom - top));
      }
      g.fillStyle = css("--bad");
      for (const [from, to] of sound?.clipping || []) g.fillRect((from / total) * width, 0, Math.max(2, ((to - from) / total) * width), 3);
      if (cut) {
        g.fillStyle = css("--veil");
        g.fillRect(0, 0, (cut[0] / total) * width, height);
        g.fillRect((cut[1] / total) * width, 0, width, height);
      }
      g.fillStyle = css("--text");
      g.fillRect(Math.min(Math.max(head - 1, 0), width - 2), 0, 2, height);
    }

    function tick() {
      if (!alive) return;
      const now = video.currentTime;
      if (cut && !video.paused && (now >= cut[1] || now < cut[0] - 0.05)) seek(cut[0]);
      if (now !== shown || dirty) {
        shown = now;
        dirty = false;
        drawWave();
        wave.dataset.shown = now.toFixed(4);
        time.textContent = `${clock(now)} / ${clock(length())}`;
        wave.setAttribute("aria-valuenow", now.toFixed(2));
        wave.setAttribute("aria-valuetext", t("position_text", { at: now.toFixed(2), total: length().toFixed(2) }));
      }
      requestAnimationFrame(tick);
    }
    new ResizeObserver(() => { dirty = true; }).observe(wave);
    document.addEventListener("studio:theme", () => { dirty = true; });

    // ---- seeking by hand and by key

    const secondsAt = (event) => {
      const area = wave.getBoundingClientRect();
      return ((event.clientX - area.left) / area.width) * length();
    };
    wave.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest(".handle")) return;
      event.preventDefault();
      wave.focus({ preventScroll: true });
      wave.setPointerCapture(event.pointerId);
      seek(secondsAt(event));
      const drag = (e) => seek(secondsAt(e));
      wave.addEventListener("pointermove", drag);
      wave.addEventListener("lostpointercapture", () => wave.removeEventListener("pointermove", drag), { once: true });
    });
    function keys(event) {
      const frame = 1 / (clip?.fps || 24), now = video.currentTime;
      const jumps = {
        ArrowLeft: now - (event.shiftKey ? 1 : frame), ArrowRight: now + (event.shiftKey ? 1 : frame),
        Home: cut ? cut[0] : 0, End: cut ? cut[1] : length(), PageUp: now + 1, PageDown: now - 1,
      };
      if (event.key in jumps) { seek(jumps[event.key]); event.preventDefault(); event.stopPropagation(); }
      else if (event.key === " ") { toggle(); event.preventDefault(); event.stopPropagation(); }
    }
    wave.addEventListener("keydown", keys);

    // ---- trimming

    function handle(side) {
      const node = h("div.handle", { role: "slider", tabindex: "0", "aria-label": t(side ? "trim_end" : "trim_start"), "aria-valuemin": "0" });
      const least = () => 2 / (clip?.fps || 24);
      function to(seconds) {
        if (side) cut[1] = Math.min(length(), Math.max(seconds, cut[0] + least()));
        else cut[0] = Math.max(0, Math.min(seconds, cut[1] - least()));
        place();
      }
      node.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        event.stopPropagation();
        node.setPointerCapture(event.pointerId);
        const drag = (e) => to(secondsAt(e));
        node.addEventListener("pointermove", drag);
        node.addEventListener("lostpointercapture", () => node.removeEventListener("pointermove", drag), { once: true });
      });
      node.addEventListener("keydown", (event) => {
        const step = (event.shiftKey ? 10 : 1) / (clip?.fps || 24);
        if (event.key === "ArrowLeft") to(cut[side] - step); else if (event.key === "ArrowRight") to(cut[side] + step); else return;
        event.preventDefault();
        event.stopPropagation();
      });
      return node;
    }
    const handles = [handle(0), handle(1)];
    const span = h("span.span");
    function place() {
      handles.forEach((node, side) => {
        node.style.left = `${(cut[side] / (length() || 1)) * 100}%`;
        node.setAttribute("aria-valuemax", length().toFixed(2));
        node.setAttribute("aria-valuenow", cut[side].toFixed(2));
        node.setAttribute("aria-valuetext", `${cut[side].toFixed(2)} s`);
      });
      span.textContent = `${cut[0].toFixed(2)} s – ${cut[1].toFixed(2)} s`;
      dirty = true;
    }
    function trimming(on) {
      cut = on ? [0, length()] : null;
      if (on) { wave.append(...handles, span); place(); } else { for (const node of [...handles, span]) node.remove(); }
      wave.classList.toggle("cutting", on);
      dirty = true;
    }

    // ---- what is known of the clip

    function badge(name, text, title, kind = "") { return h(`span.badge${kind ? "." + kind : ""}`, { title }, name ? icon(name) : null, text); }
    function drawBadges() {
      badges.replaceChildren();
      if (!sound) return;
      if (!sound.audio_seconds) { badges.append(badge("mute", t("no_sound"), t("no_sound"))); return; }
      const gap = Math.abs(sound.video_seconds - sound.audio_seconds) * 1000, good = gap <= 1000 / (clip.fps || 24);
      badges.append(badge(good ? "check" : "alert", t("av_badge", { ms: Math.round(gap) }), t("av_help"), good ? "" : "warn"));
      if (sound.lufs > -69) badges.append(badge("level", `${sound.lufs.toFixed(1)} LUFS`, t("loudness_help", { peak: (sound.true_peak_db ?? -99).toFixed(1) })));
      else badges.append(badge("mute", t("silent"), t("silent"), "warn"));
      if (sound.clipping.length) badges.append(badge("alert", t("clips_badge", { n: sound.clipping.length }), t("clips_help"), "warn"));
    }

    async function measure() {
      const asked = clip.id;
      try {
        const answer = await fetch(`/media/clips/${asked}/peaks`);
        if (!answer.ok) throw new Error(`peaks: ${answer.status}`);
        const found = await answer.json();
        if (clip.id === asked) { sound = found; dirty = true; drawBadges(); }
      } catch (error) { console.warn(error); }
    }

    function show(next, start = false) {
      const other = !clip || clip.id !== next.id;
      clip = next;
      if (other) {
        sound = null;
        measure();
        trimming(false);
        screen.style.aspectRatio = `${next.width} / ${next.height}`;
        screen.style.setProperty("--shape", next.width / next.height);
        video.poster = next.thumb;
        video.src = next.url;
        wave.setAttribute("aria-valuemax", next.seconds.toFixed(2));
        if (start) {
          // A browser that was not touched yet plays nothing aloud; the picture still starts.
          video.play().catch(() => { video.muted = true; video.play().catch((error) => console.warn(error)); });
        }
      }
      dirty = true;
      drawBadges();
      pressed();
    }
    function stop() { alive = false; video.pause(); video.removeAttribute("src"); video.load(); }

    pressed();
    requestAnimationFrame(tick);
    return { show, stop, trimming, toggle, seek, keys, video, wave, screen, range: () => (cut ? [...cut] : null) };
  };
})();
