// The token of the hub: typed, sent, emptied. Nothing of the page keeps it.
(() => {
  const { t, h, button, say, whenConnected } = studio;

  studio.part("token", (root, { server }) => {
    const field = h("input", { type: "password", id: "hub-token", autocomplete: "off", spellcheck: "false", placeholder: "hf_…", "aria-describedby": "hub-token-state" });
    const state = h("span", { id: "hub-token-state", role: "status" });
    const keep = button("check", t("token_save"), () => ask({ do: "keep", text: field.value }), { "data-do": "keep", disabled: true });
    const forget = button("bin", t("token_clear"), () => ask({ do: "forget" }), { "data-do": "forget", hidden: true });
    field.addEventListener("input", () => { keep.disabled = !field.value.trim(); });
    field.addEventListener("keydown", (event) => { if (event.key === "Enter" && !keep.disabled) keep.click(); });
    root.classList.add("token");
    root.append(h("label", { for: "hub-token" }, t("token")), h("p", {}, t("token_info")), h("div.tokenrow", {}, field, keep), h("div.tokenrow", {}, state, forget));

    async function ask(data = {}) {
      const answer = await server.token(data).catch((error) => { console.warn(error); return { error: t("no_answer") }; });
      if (answer.error) { if (data.do) say(answer.error, { bad: true }); return; } // to guests it is not shown at all
      field.value = "";
      keep.disabled = true;
      state.textContent = answer.text;
      root.dataset.where = answer.where;
      forget.hidden = !["keyring", "file"].includes(answer.where);
      if (answer.say) say(answer.say);
    }
    whenConnected(() => ask());
  });
})();
