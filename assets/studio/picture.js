// The first or last picture: chosen, dropped or pasted; the bright frame is exactly what the model will see.
(() => {
  const { t, h, icon, button, say } = studio;
  const HIGHEST = 196; // pixels of a picture in the form
  const frames = new Set(); // all slots on the page: they learn the clip's size together

  /** The clip's size in pixels, from Python: the frame takes its shape. */
  studio.setClipSize = (width, height) => { for (const slot of frames) slot.shape(width, height); };

  /** Brings a picture file into the studio; resolves to {id, url, width, height}, or null after a notice. */
  async function upload(file) {
    const form = new FormData();
    form.append("file", file, file.name || "picture.png");
    let answer = null;
    try {
      answer = await fetch("/studio/upload", { method: "POST", body: form });
      const body = await answer.json();
      if (answer.ok) return body;
      say(body.error?.message || body.detail || t("upload_failed"), { bad: true });
    } catch { say(t("upload_failed"), { bad: true }); }
    return null;
  }
  studio.upload = upload;

  studio.part("picture", (root, { props, trigger, watch }) => {
    const last = props.which === "last";
    const given = () => (props.value?.id ? props.value : null);
    let value = given(); // {id, url, width, height, crop: [x, y]}
    let clip = [16, 9];
    const input = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", tabindex: "-1", "aria-hidden": "true" });
    const image = h("img", { alt: "", draggable: "false" });
    const frame = h("div.crop", { role: "slider", tabindex: "0", "aria-label": t("crop_label") });
    const board = h("div.board", {}, image, frame);
    const name = t(last ? "last_picture" : "first_picture");
    const empty = h("button.drop", { type: "button", onclick: () => input.click() },
      icon("picture"), h("strong", {}, name), h("span", {}, t(last ? "last_picture_hint" : "picture_hint")));
    const bar = h("div.slotbar", {},
      h("span", {}, name),
      button("swap", t("replace_picture"), () => input.click(), { quiet: true }),
      button("close", t("remove_picture"), () => put(null), { quiet: true }));
    root.classList.add("picture");
    root.append(input, empty, board, bar);

    function put(next) {
      value = next;
      props.value = next;
      trigger("change");
      draw();
    }

    function box() { // the part of the picture that the model sees, in fractions
      const scale = Math.min(value.width / clip[0], value.height / clip[1]);
      const w = Math.min(1, (clip[0] * scale) / value.width), hgt = Math.min(1, (clip[1] * scale) / value.height);
      const [x, y] = value.crop || [0.5, 0.5];
      return { w, h: hgt, x: Math.min(Math.max(x - w / 2, 0), 1 - w), y: Math.min(Math.max(y - hgt / 2, 0), 1 - hgt) };
    }

    function draw() {
      root.classList.toggle("filled", Boolean(value));
      if (!value) { image.removeAttribute("src"); return; }
      if (image.getAttribute("src") !== value.url) image.src = value.url;
      image.alt = name;
      if (!value.width) return; // known when the picture is there
      board.style.aspectRatio = `${value.width} / ${value.height}`;
      board.style.maxWidth = `${Math.round((HIGHEST * value.width) / value.height)}px`; // tall pictures stay in the column
      const b = box(), percent = (n) => `${(n * 100).toFixed(3)}%`;
      Object.assign(frame.style, { left: percent(b.x), top: percent(b.y), width: percent(b.w), height: percent(b.h) });
      const sideways = b.w < 0.999, free = sideways || b.h < 0.999;
      frame.classList.toggle("free", free);
      const room = sideways ? 1 - b.w : 1 - b.h, at = sideways ? b.x : b.y;
      frame.setAttribute("aria-orientation", sideways ? "horizontal" : "vertical");
      frame.setAttribute("aria-valuemin", "0");
      frame.setAttribute("aria-valuemax", "100");
      frame.setAttribute("aria-valuenow", free ? Math.round((at / room) * 100) : 50);
      frame.setAttribute("aria-valuetext", free ? t("crop_at", { x: Math.round(b.x * 100), y: Math.round(b.y * 100) }) : t("crop_whole"));
    }

    function move(x, y, done) { // where the frame's left upper corner should go, in fractions
      const b = box();
      const left = Math.min(Math.max(x, 0), 1 - b.w), top = Math.min(Math.max(y, 0), 1 - b.h);
      value = { ...value, crop: [left + b.w / 2, top + b.h / 2] };
      if (done) put(value); else draw();
    }

    frame.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      frame.focus();
      const area = board.getBoundingClientRect(), b = box(), from = [event.clientX, event.clientY];
      const to = (e, done) => move(b.x + (e.clientX - from[0]) / area.width, b.y + (e.clientY - from[1]) / area.height, done);
      const drag = (e) => to(e, false);
      const drop = (e) => { frame.removeEventListener("pointermove", drag); to(e, true); };
      frame.setPointerCapture(event.pointerId);
      frame.addEventListener("pointermove", drag);
      frame.addEventListener("pointerup", drop, { once: true });
    });
    frame.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.1 : 0.01;
      const way = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
      if (!way) return;
      event.preventDefault();
      event.stopPropagation();
      const b = box();
      move(b.x + way[0], b.y + way[1], true);
    });

    image.addEventListener("load", () => {
      if (value && !value.width) { value = { ...value, width: image.naturalWidth, height: image.naturalHeight }; draw(); }
    });

    async function take(file) {
      if (!file) return;
      root.classList.add("busy");
      const got = await upload(file);
      root.classList.remove("busy");
      if (got) put({ ...got, crop: [0.5, 0.5] });
    }
    input.addEventListener("change", () => { take(input.files[0]); input.value = ""; });
    root.addEventListener("dragover", (event) => { event.preventDefault(); root.classList.add("over"); });
    root.addEventListener("dragleave", () => root.classList.remove("over"));
    root.addEventListener("drop", (event) => {
      root.classList.remove("over");
      const file = event.dataTransfer.files[0];
      if (file && file.type.startsWith("image/")) { event.preventDefault(); event.stopPropagation(); take(file); studio.endDrop?.(); }
    });
    if (!last) {
      document.addEventListener("paste", (event) => {
        const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
        if (file) { event.preventDefault(); take(file); }
      });
    }
    watch("value", () => { value = given(); draw(); });
    if (!last) studio.firstPicture = () => value?.id ?? null;
    frames.add({ shape(width, height) { clip = [width, height]; if (value) draw(); } });
    draw();
  });
})();
