// What pages do beyond links and forms: theme, menus, dialogs, messages, copy buttons, ages. All of it is an addition:
// without this file every page still works.
"use strict";
(() => {
  const root = document.documentElement;
  const each = (selector, act, scope = document) => scope.querySelectorAll(selector).forEach(act);

  // --- theme: auto → the other one → the one → auto, as the admin cycles
  const nextTheme = (current) => {
    const systemDark = matchMedia("(prefers-color-scheme: dark)").matches;
    const order = systemDark ? ["auto", "light", "dark"] : ["auto", "dark", "light"];
    return order[(order.indexOf(current) + 1) % order.length];
  };
  const setTheme = (mode) => {
    root.dataset.theme = mode;
    try {
      localStorage.setItem("theme", mode);
    } catch {
      // it holds for this page, then
    }
  };

  // --- dialogs and menus
  const openDialog = (id, opener) => {
    const dialog = document.getElementById(id);
    if (!(dialog instanceof HTMLDialogElement)) return false;
    const back = () => (opener.closest("details:not([open])")?.querySelector("summary") ?? opener).focus();
    dialog.addEventListener("close", back, { once: true });
    dialog.showModal();
    return true;
  };
  const closeMenus = (except) => each("details.menu[open]", (menu) => menu !== except && menu.removeAttribute("open"));

  const copy = async (button) => {
    const source = document.querySelector(button.dataset.copy);
    if (!source) return;
    try {
      await navigator.clipboard.writeText(source.textContent.trim());
    } catch {
      getSelection().selectAllChildren(source); // no clipboard over plain http: select it, so that Ctrl+C does it
      return;
    }
    const before = button.textContent;
    button.textContent = button.dataset.copied || "✓";
    setTimeout(() => (button.textContent = before), 1500);
  };

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    if (!target.closest("dialog")) closeMenus(target.closest("details.menu"));
    const hit = (selector) => target.closest(selector);
    const opener = hit("[data-dialog]");
    if (opener && openDialog(opener.dataset.dialog, opener)) event.preventDefault();
    const closer = hit("[data-close]");
    if (closer) {
      closer.closest("dialog")?.close();
      event.preventDefault();
    }
    if (hit(".theme-toggle")) setTheme(nextTheme(root.dataset.theme));
    if (hit("[data-dismiss]")) hit("[data-dismiss]").closest(".message")?.remove();
    if (hit("[data-copy]")) copy(hit("[data-copy]"));
    if (target instanceof HTMLDialogElement) target.close(); // the backdrop
    const row = hit("tr.is-link");
    if (row && !hit("a, button, input, select, label, summary") && !getSelection().toString()) row.querySelector("a")?.click();
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    const menu = document.querySelector("details.menu[open]");
    if (!menu) return;
    menu.removeAttribute("open");
    menu.querySelector("summary").focus();
  });

  // --- a select that submits its form (language, page size); its button is for those without script
  document.addEventListener("change", (event) => {
    if (event.target instanceof Element && event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  });

  // --- the navigation of a narrow screen: the entry of this page is in sight
  const here = document.querySelector(".nav [aria-current]");
  const bar = here?.closest("nav");
  if (bar) bar.scrollLeft = here.offsetLeft - (bar.clientWidth - here.offsetWidth) / 2;

  // --- ages: "12 s ago" goes on counting between two updates
  const units = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
  const relative = new Intl.RelativeTimeFormat(root.lang || "en", { numeric: "always", style: "narrow" });
  const age = (element) => {
    const seconds = Math.max(0, Math.round((Date.now() - Date.parse(element.dateTime)) / 1000));
    const [size, unit] = units.find(([size]) => seconds >= size) || units[3];
    const text = relative.format(-Math.floor(seconds / size), unit);
    if (element.textContent !== text) element.textContent = text;
  };
  const ages = () => each("time[data-ago]", age);
  setInterval(ages, 1000);
  document.addEventListener("htmx:load", ages);

  // --- htmx: an answer that says what is shown already changes nothing, so that focus and scrolling stay; opened
  //     <details> stay open; a form's errors (422) are shown like any other answer
  const shown = new Map();
  const opened = new Set();
  const bare = (html) => html.replace(/(name="csrfmiddlewaretoken" value=")[^"]*/g, "$1").replace(/(data-ago>)[^<]*/g, "$1");
  document.addEventListener("htmx:beforeSwap", ({ detail }) => {
    if (detail.xhr.status === 422) detail.shouldSwap = true;
    const text = bare(detail.xhr.responseText);
    if (detail.target.id && shown.get(detail.target.id) === text) detail.shouldSwap = false;
    else shown.set(detail.target.id, text);
    opened.clear();
    each("details[id][open]", (details) => opened.add(details.id), detail.target);
  });
  document.addEventListener("htmx:afterSwap", () => {
    opened.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  });
})();
