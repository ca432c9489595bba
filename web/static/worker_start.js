// Starts the worker; messages that arrive before the program is ready are kept.
import "./timestamp_query.js";
import { askForSubgroups } from "./subgroups.js";
import init, { receive, tell_adapter, use_subgroups } from "./worker.js";

const early = [];
self.onmessage = (message) => early.push(message.data);
await init();
askForSubgroups(use_subgroups, tell_adapter);
self.onmessage = (message) => receive(message.data);
early.forEach((message) => receive(message));
