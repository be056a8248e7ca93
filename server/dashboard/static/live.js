// Keeps the live round and the history up to date. The server renders; here its HTML takes the old one's place.
"use strict";
const events = new EventSource(document.getElementById("live").dataset.events);
const connection = document.getElementById("connection");
for (const part of ["live", "history"]) {
  events.addEventListener(part, (event) => {
    document.getElementById(part).innerHTML = event.data;
  });
}
events.onopen = () => { connection.hidden = true; };
events.onerror = () => { connection.hidden = false; }; // the browser tries again by itself
addEventListener("pagehide", () => events.close());
