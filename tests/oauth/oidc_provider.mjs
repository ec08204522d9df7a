// npm's oidc-provider: node oidc_provider.mjs FOLDER-WITH-NODE_MODULES SETTINGS.json
// It answers over http, and over https to clients with a certificate; it prints "ready" and its address once it does.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [, , home, settings] = process.argv;
const found = createRequire(`${home}/`).resolve('oidc-provider');
const { Provider } = await import(pathToFileURL(found));

const { clients, algorithms, jwks, key, certificate } = JSON.parse(readFileSync(settings));

const listen = (server) => new Promise((resolve) => {
  server.listen(0, '127.0.0.1', () => resolve(server.address().port));
});

let answer;
const plain = createServer((request, response) => answer(request, response));
const secure = createSecureServer(
  { key, cert: certificate, requestCert: true, rejectUnauthorized: false },
  (request, response) => answer(request, response),
);
const issuer = `http://127.0.0.1:${await listen(plain)}`;
const behindTls = `https://127.0.0.1:${await listen(secure)}`;

const provider = new Provider(issuer, {
  clients,
  jwks,
  clientAuthMethods: [
    'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt',
    'self_signed_tls_client_auth', 'none',
  ],
  enabledJWA: { clientAuthSigningAlgValues: algorithms },
  scopes: ['read'],
  discovery: { mtls_endpoint_aliases: { token_endpoint: `${behindTls}/token` } },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    mTLS: {
      enabled: true,
      selfSignedTlsClientAuth: true,
      getCertificate: (ctx) => ctx.socket.getPeerX509Certificate?.()?.toString(),
    },
  },
});
answer = provider.callback();
console.log(`ready ${issuer}`);
