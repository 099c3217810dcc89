'use strict';
// The server of Node's http module as it is without any setting: its keep-alive timeout is what the
// tests are about.
const fs = require('fs');
const http = require('http');

const [port, idle] = process.argv.slice(2);
const waiting = [];

const server = http.createServer((request, response) => {
  request.resume();
  // It is set behind the response, by the server itself.
  response.on('finish', () => setImmediate(() => console.log('closes after', request.socket.timeout)));
  request.on('end', () => {
    const [, what, count] = request.url.split('/');
    if (what === 'together') {
      // Nobody is answered before so many ask: each then has a connection of its own.
      waiting.push(response);
      if (waiting.length === Number(count)) waiting.splice(0).forEach((one) => one.end('good'));
      return;
    }
    if (what === 'busy') {
      // Work that does not let go of the event loop, until there is a file.
      console.log('busy');
      const nobody = new Int32Array(new SharedArrayBuffer(4));
      while (!fs.existsSync(idle)) Atomics.wait(nobody, 0, 0, 5);
    }
    response.end('good');
  });
});

server.listen(Number(port), '127.0.0.1', () => console.log('listening'));
