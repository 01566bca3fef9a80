// Live pages. The server says *that* something of a topic changed; what it is now is fetched by whoever shows it:
//   <div hx-get="…" hx-trigger="llmlb:nodes from:body, llmlb:tick from:body" hx-sync="this:queue last">
// Events on <body>: `llmlb:nodes`, `llmlb:models`, `llmlb:keys`, `llmlb:history`, `llmlb:exclusions`, `llmlb:downloads` (at most one in half
// a second each, history one a second; the last one is never lost), and `llmlb:tick` every 5 s while the page is looked at. While the socket is down, every
// tick stands for every topic.
"use strict";
(() => {
  const TOPICS = ["nodes", "models", "keys", "history", "exclusions", "downloads"];
  const pause = (topic) => (topic === "history" ? 1000 : 500);
  const TICK = 5000;
  const state = document.getElementById("live-state");
  const waiting = new Map();
  const missed = new Set();
  let socket = null;
  let failures = 0;

  const emit = (topic) => document.body.dispatchEvent(new CustomEvent(`llmlb:${topic}`));
  const show = (name) => {
    if (!state || state.dataset.state === name) return;
    state.dataset.state = name;
    state.textContent = state.dataset[`${name}Text`];
  };

  // At once, then after that with a pause; an event inside it is kept for its end.
  const hint = (topic) => {
    if (document.hidden) return void missed.add(topic);
    if (waiting.has(topic)) return void waiting.set(topic, true);
    emit(topic);
    waiting.set(topic, false);
    setTimeout(() => {
      const again = waiting.get(topic);
      waiting.delete(topic);
      if (again) hint(topic);
    }, pause(topic));
  };

  const connect = () => {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(`${scheme}://${location.host}${document.body.dataset.live}`);
    socket.addEventListener("message", (event) => {
      const news = JSON.parse(event.data);
      if (news.type === "connected") {
        if (failures) TOPICS.forEach(hint); // whatever happened while we were away
        failures = 0;
        show("live");
      } else if (TOPICS.includes(news.topic)) hint(news.topic);
    });
    socket.addEventListener("close", () => {
      socket = null;
      failures += 1;
      show("polling");
      const wait = Math.min(30000, 1000 * 2 ** Math.min(failures - 1, 5));
      setTimeout(connect, wait * (0.8 + 0.4 * Math.random()));
    });
  };

  setInterval(() => {
    if (document.hidden) return;
    emit("tick");
    if (state && state.dataset.state === "polling") TOPICS.forEach(emit);
  }, TICK);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    const topics = [...missed];
    missed.clear();
    topics.forEach(hint);
  });
  addEventListener("pagehide", () => socket?.close());
  connect();
})();
