// Starts the worker of the page, and tells the page what it requests.
import "./network.js";
import "./worker_start.js";
