// validatorUrl: null, because Swagger UI would otherwise send the document to a site of its own.
SwaggerUIBundle({
  url: "/schema/openapi.json",
  dom_id: "#viewer",
  validatorUrl: null,
  tryItOutEnabled: true,
  deepLinking: true,
});
