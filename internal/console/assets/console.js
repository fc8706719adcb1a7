// Keeps the pages current. The same file is the script of every page, and the script of the one
// SharedWorker, which has the one event stream of the browser: a browser opens six connections to a
// host at most, so with a stream for each tab the seventh tab would load nothing.
"use strict";

const stream = "/console/live";
const retryAfter = 3000;

// follow opens the event stream, again whenever it ends, and hands on its messages.
function follow(receive) {
	const open = () => {
		const source = new EventSource(stream);
		source.onopen = () => receive({ kind: "state", live: true });
		source.onerror = () => {
			receive({ kind: "state", live: false });
			if (source.readyState === EventSource.CLOSED) { // refused, so the browser does not try again
				setTimeout(open, retryAfter);
			}
		};
		for (const kind of ["facts", "events"]) {
			source.addEventListener(kind, (e) => receive({ kind, data: JSON.parse(e.data) }));
		}
	};
	open();
}

// share is the work of the SharedWorker: each message goes to all tabs, and a new tab gets the last
// state and facts.
function share() {
	const tabs = new Set();
	const last = new Map();
	self.onconnect = (e) => {
		const tab = e.ports[0];
		tabs.add(tab);
		tab.onmessage = () => tabs.delete(tab);
		last.forEach((m) => tab.postMessage(m));
	};
	follow((m) => {
		if (m.kind !== "events") {
			last.set(m.kind, m);
		}
		tabs.forEach((tab) => tab.postMessage(m));
	});
}

const maxRows = 200;
const announceEvery = 10000;
const refreshEvery = 2000;

// show is the work of a page.
function show() {
	const state = document.getElementById("live-state");
	const table = document.querySelector("#events tbody");
	const pause = document.getElementById("pause");
	const news = document.getElementById("news");
	let unannounced = 0;
	let refreshing = null;

	function setText(element, text) {
		if (element && element.textContent !== text) {
			element.textContent = text;
		}
	}

	function showFacts(data) {
		for (const f of data.facts || []) {
			const element = document.getElementById("fact-" + f.id);
			setText(element, f.text);
			if (element) {
				element.dataset.level = f.level;
			}
		}
		if (data.curve && document.getElementById("curve-title")) {
			setText(document.getElementById("curve-title"), data.curve.text);
			document.getElementById("curve-starts").setAttribute("points", data.curve.starts);
			document.getElementById("curve-stops").setAttribute("points", data.curve.stops);
		}
	}

	// cell makes a table cell with a text, which may lead to a page.
	function cell(row, text, page) {
		const td = row.insertCell();
		const inner = document.createElement(page && text ? "a" : "bdi");
		if (page && text) {
			inner.href = "/console/" + page + "/" + encodeURIComponent(text);
		}
		inner.textContent = text;
		td.append(inner);
	}

	function rowWith(text) {
		const row = table.insertRow(0);
		const td = row.insertCell();
		td.colSpan = 7;
		td.textContent = text;
	}

	function showEvents(data) {
		if (!table || pause.getAttribute("aria-pressed") === "true") {
			return;
		}
		for (const e of data.rows || []) {
			const row = table.insertRow(0);
			cell(row, e.at.replace("T", " ").slice(0, 19));
			cell(row, e.kind);
			cell(row, e.inside, "subscribers");
			cell(row, e.user);
			cell(row, e.outside, "outside");
			cell(row, e.ports);
			cell(row, e.detail);
		}
		if (data.leftOut) {
			rowWith(data.leftOut + " more at this time are left out");
		}
		if (data.missed) {
			rowWith("Some events were missed, because there were too many");
		}
		while (table.rows.length > maxRows) {
			table.deleteRow(-1);
		}
		unannounced += (data.rows || []).length + data.leftOut;
	}

	// refresh replaces the parts of the page that an event is about, by those of the page as it is now.
	// A part in which somebody is at work stays.
	async function refresh() {
		refreshing = null;
		try {
			const answer = await fetch(location.href);
			if (!answer.ok) {
				return;
			}
			const now = new DOMParser().parseFromString(await answer.text(), "text/html");
			for (const old of document.querySelectorAll(".refreshed")) {
				const next = now.getElementById(old.id);
				if (next && !old.contains(document.activeElement) && getSelection().isCollapsed) {
					old.replaceWith(document.adoptNode(next));
				}
			}
		} catch {
			// The stream tells that the server is away.
		}
	}

	function refreshFor(data) {
		const part = document.querySelector(".refreshed");
		const concerns = (e) => e.inside === part.dataset.inside || e.outside === part.dataset.outside;
		if (part && !refreshing && (data.leftOut || data.missed || (data.rows || []).some(concerns))) {
			refreshing = setTimeout(refresh, refreshEvery);
		}
	}

	function showState(live) {
		state.hidden = false;
		state.classList.toggle("lost", !live);
		setText(state, live ? "live" : "not live, connecting again");
	}

	function receive(m) {
		switch (m.kind) {
		case "state":
			return showState(m.live);
		case "facts":
			return showFacts(m.data);
		case "events":
			showEvents(m.data);
			return refreshFor(m.data);
		}
	}

	function connect() {
		if (typeof SharedWorker === "undefined") {
			return follow(receive);
		}
		const worker = new SharedWorker(document.querySelector("script[src]").src, { name: "sessiond" });
		worker.port.onmessage = (e) => receive(e.data);
		worker.onerror = () => follow(receive);
		addEventListener("pagehide", () => worker.port.postMessage("gone"), { once: true });
	}

	if (pause) {
		pause.hidden = false;
		pause.addEventListener("click", () => {
			const paused = pause.getAttribute("aria-pressed") !== "true";
			pause.setAttribute("aria-pressed", paused);
		});
		setInterval(() => {
			if (unannounced > 0) {
				setText(news, unannounced + " new events");
				unannounced = 0;
			}
		}, announceEvery);
	}
	addEventListener("pageshow", (e) => {
		if (e.persisted) { // out of the browser's memory of pages: its figures are old
			location.reload();
		}
	});
	if (document.body.dataset.live) { // else the visitor may read nothing
		connect();
	}
}

if (typeof document === "undefined") {
	share();
} else {
	show();
}
