// Loaded in <head>, before the first paint: the theme that was chosen, by the name and the key that Django's admin uses.
"use strict";
(() => {
  const read = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage is closed to us: follow the system
    }
  };
  const mode = read();
  document.documentElement.dataset.theme = mode === "light" || mode === "dark" ? mode : "auto";
})();
