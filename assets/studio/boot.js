// Runs before anything else of the page: theme, language. Choices of this browser come before the studio's defaults.
(() => {
  const kept = (name) => { try { return localStorage.getItem("studio." + name); } catch { return null; } };
  const defaults = window.studioDefaults;
  const theme = kept("theme") || defaults.theme;
  const light = theme === "light" || (theme === "auto" && matchMedia("(prefers-color-scheme: light)").matches);
  document.documentElement.dataset.theme = light ? "light" : "dark";
  let language = kept("language") || defaults.language;
  if (language === "auto") language = /^zh/i.test(navigator.language || "") ? "zh" : "en";
  if (!defaults.words[language]) language = "en";
  // Gradio takes its language from the browser's; this is the one place where it can be told otherwise.
  const tag = language === "zh" ? "zh-CN" : "en";
  Object.defineProperty(navigator, "language", { get: () => tag, configurable: true });
  Object.defineProperty(navigator, "languages", { get: () => [tag], configurable: true });
  document.documentElement.lang = tag;
  document.cookie = `studio_language=${language};path=/;SameSite=Lax;max-age=31536000`;
  window.studioBoot = { theme, language };
})();
